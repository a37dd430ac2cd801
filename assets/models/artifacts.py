"""What a local engine loads: found by model and quantization, and checked against its manifest each time."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from assets.models.errors import CorruptArtifactError, MissingArtifactError
from assets.models.folders import model_dir
from assets.models.manifest import Manifest, read_manifest, verify

GGUF_NAME = "model.gguf"
TOKENIZER_NAME = "tokenizer.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LocalArtifact:
    """The GGUF file, or the folder of safetensors in the Hugging Face layout; and its `tokenizer.json` where there is one."""

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
    model_path = folder / GGUF_NAME if GGUF_NAME in manifest.files else folder
    return LocalArtifact(model_path, folder / TOKENIZER_NAME if TOKENIZER_NAME in manifest.files else None)


def usable(folder: Path, made_from: str) -> Manifest | None:
    """The manifest of a folder that is whole and made from this; None where it must be made.

    Missing, made from something else, or damaged: the last is reported as a warning.
    """
    try:
        manifest = read_manifest(folder)
        if manifest is None or manifest.made_from != made_from:
            return None
        verify(folder, manifest)
    except CorruptArtifactError as error:
        _log.warning("%s; making it anew", error.problem)
        return None
    return manifest
