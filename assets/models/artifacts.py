"""What the local engine loads: found by model and quantization, and checked against its manifest each time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from assets.models.errors import MissingArtifactError
from assets.models.folders import model_dir
from assets.models.manifest import Manifest, read_manifest, verify

GGUF_NAME = "model.gguf"
TOKENIZER_NAME = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class LocalArtifact:
    """The model file, and its `tokenizer.json` where there is one."""

    model_path: Path
    tokenizer_path: Path | None


def resolve_local_artifact(model_id: str, quantization: str, state_dir: Path) -> LocalArtifact:
    """The verified files of a model version.

    Raises:
        MissingArtifactError: they have not been made or fetched.
        CorruptArtifactError: a file differs from its manifest.
    """
    folder = model_dir(state_dir, model_id) / quantization
    manifest = read_manifest(folder)
    if manifest is None:
        raise MissingArtifactError(f"{folder} holds no weights: materialize the `model` asset for {model_id} first")
    verify(folder, manifest)
    return LocalArtifact(folder / GGUF_NAME, folder / TOKENIZER_NAME if TOKENIZER_NAME in manifest.files else None)


def usable(folder: Path, made_from: str) -> Manifest | None:
    """The manifest of a folder that is whole and made from this; None where it is missing or made from something else.

    Raises:
        CorruptArtifactError: a file differs from its manifest.
    """
    manifest = read_manifest(folder)
    if manifest is None or manifest.made_from != made_from:
        return None
    verify(folder, manifest)
    return manifest
