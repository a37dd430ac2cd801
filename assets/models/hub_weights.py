"""Weights of a hub model for the local engine: its GGUF files, or GGUF files made here from its safetensors."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from assets.models.artifacts import GGUF_NAME, TOKENIZER_NAME, usable
from assets.models.convert import TOKENIZER_CONFIG_NAME, convert, spec_of
from assets.models.errors import InvalidModelError
from assets.models.folders import locked, make_folder, model_dir, writing
from assets.models.gguf_header import read_gguf_header_of
from assets.models.gguf_writer import GGUF_QUANTIZATIONS, GgufQuantization
from assets.models.hub import Hub, HubFile, HubModel
from assets.models.hub_facts import CONFIG_NAME, Described
from assets.models.llama import LlamaSpec
from assets.models.manifest import Manifest, write_manifest
from assets.models.progress import Progress, no_progress

_QUANTIZATION_IN_NAME = re.compile(r"(?:^|[-_.])(f16|fp16|q8_0|q4_0)(?=[-_.]|$)", re.IGNORECASE)
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_DOWNLOAD = ".download"
_CONVERSION = 1  # raise it when conversion makes other bytes from the same weights
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class WeightsPlan:
    """What would be fetched: GGUF files as they are, or safetensors to convert (`spec` is then set)."""

    made_from: str
    gguf: Mapping[GgufQuantization, HubFile]
    safetensors: tuple[HubFile, ...]
    spec: LlamaSpec | None

    @property
    def download_bytes(self) -> int:
        """Size of the weight files to fetch."""
        return sum(file.size_bytes or 0 for file in (*self.gguf.values(), *self.safetensors))

    @property
    def revisions(self) -> Mapping[GgufQuantization, str]:
        """What there will be afterwards, each with the revision of its weights: the file's SHA-256, or that of what it is made from."""
        made_from = hashlib.sha256(self.made_from.encode()).hexdigest()
        if self.spec is not None:
            return dict.fromkeys(GGUF_QUANTIZATIONS, made_from)
        return {quantization: file.sha256 or made_from for quantization, file in self.gguf.items()}


def plan_weights(described: Described, limit_bytes: int) -> WeightsPlan:
    """How this model gets to the local engine.

    Raises:
        InvalidModelError: it does not; the message says why and what would help.
    """
    model = described.model
    made_from = f"{model.hub_id}@{described.facts.revision}"
    gguf = gguf_files(described)
    if gguf:
        plan = WeightsPlan(made_from, gguf, (), None)
    elif described.config is not None and model.names(".safetensors"):
        safetensors = tuple(model.file(name) for name in model.names(".safetensors") if "/" not in name)
        spec = spec_of(described.facts, described.config)
        plan = WeightsPlan(f"{made_from} converted by recipe {_CONVERSION}", {}, safetensors, spec)
    else:
        raise InvalidModelError(
            f"{model.hub_id} has GGUF files, but none in one file of a quantization that Dyno measures ({', '.join(GGUF_QUANTIZATIONS)}); "
            f"it has {', '.join(model.names('.gguf')[:5])}"
        )
    if plan.download_bytes > limit_bytes:
        raise InvalidModelError(
            f"the weights of {model.hub_id} are {plan.download_bytes / _GIB:.1f} GiB, over the limit of {limit_bytes / _GIB:.1f} GiB: "
            "raise DYNO_LOCAL_DOWNLOAD_LIMIT_GIB to fetch them for the local engine all the same"
        )
    return plan


def gguf_files(described: Described) -> dict[GgufQuantization, HubFile]:
    """The repository's GGUF files by quantization, as their names tell it; of several, the one with the shortest name."""
    found: dict[GgufQuantization, HubFile] = {}
    for name in sorted(described.model.names(".gguf"), key=lambda name: (len(name), name)):
        stem = name.rpartition("/")[2][: -len(".gguf")]
        match = _QUANTIZATION_IN_NAME.search(stem)
        if match is None or _SHARD.search(stem):
            continue
        quantization = match.group(1).lower().replace("fp16", "f16")
        for known in GGUF_QUANTIZATIONS:
            if known == quantization:
                found.setdefault(known, described.model.file(name))
    return {quantization: found[quantization] for quantization in GGUF_QUANTIZATIONS if quantization in found}


def ensure_hub_weights(
    hub: Hub, described: Described, plan: WeightsPlan, state_dir: Path, progress: Progress = no_progress
) -> dict[GgufQuantization, Manifest]:
    """Fetch and convert what is missing, out of date or damaged (a damaged file is reported as a warning).

    Afterwards `<state_dir>/models/<model_id>/<quantization>/` holds `model.gguf`, `manifest.json` and, where the model has it,
    `tokenizer.json`. An interrupted download is continued the next time.

    Returns:
        The verified manifest of each quantization.

    Raises:
        ArtifactWriteError: the files cannot be written.
        InvalidModelError: a file is not what the hub says it is.
        ModelNotFoundError, GatedModelError, HubUnreachableError: from the hub.
    """
    folder = model_dir(state_dir, described.facts.model_id)
    with writing(folder), locked(folder):
        manifests = {quantization: usable(folder / quantization, plan.made_from) for quantization in plan.revisions}
        missing = [quantization for quantization, manifest in manifests.items() if manifest is None]
        if missing:
            weights = [plan.gguf[quantization] for quantization in missing] if plan.gguf else plan.safetensors
            _fetch(hub, described.model, weights, folder / _DOWNLOAD, progress)
        for quantization in missing:
            make_folder(folder / quantization, _Filler(plan, quantization, folder / _DOWNLOAD, progress).fill)
            manifests[quantization] = usable(folder / quantization, plan.made_from)
        shutil.rmtree(folder / _DOWNLOAD, ignore_errors=True)
    return {quantization: manifest for quantization, manifest in manifests.items() if manifest is not None}


@dataclass(frozen=True, slots=True)
class _Filler:
    """How the folder of one quantization is filled from what was fetched."""

    plan: WeightsPlan
    quantization: GgufQuantization
    download: Path
    progress: Progress

    def fill(self, building: Path) -> None:
        target = building / GGUF_NAME
        if self.plan.spec is None:
            (self.download / self.plan.gguf[self.quantization].name).rename(target)
        else:
            convert(self.download, target, self.plan.spec, self.quantization, self.progress)
        read_gguf_header_of(target)
        names = [GGUF_NAME]
        if (self.download / TOKENIZER_NAME).exists():
            shutil.copyfile(self.download / TOKENIZER_NAME, building / TOKENIZER_NAME)
            names.append(TOKENIZER_NAME)
        write_manifest(building, names, self.plan.made_from)


def _fetch(hub: Hub, model: HubModel, weights: Sequence[HubFile], download: Path, progress: Progress) -> None:
    """Bring the weights, and the small files that say how to read them."""
    beside = [model.file(name) for name in (CONFIG_NAME, TOKENIZER_NAME, TOKENIZER_CONFIG_NAME) if model.has(name)]
    for file in (*beside, *weights):
        hub.download_checked(model, file.name, download, progress)
