"""From a model's facts to every cell of its matrix, each with one verdict.

9,000 cells in well under a second: what a deployment has (rules, weights, flags, the first half of every content hash) is worked out
once for its 50 load points, and a load point is written to JSON once for all deployments. The ids are those of `Configuration.config_id`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from assets.matrix.dimensions import Dimensions, Framework, preset
from assets.matrix.errors import MatrixModelError
from assets.matrix.rules import Launch, Load, Rejection, reject_launch, reject_load
from assets.matrix.spec import Configuration, Deployment, HardwareConfig, LoadPoint, ModelVersion, canonical_json
from assets.models.facts import QUANTIZATIONS, ModelFacts, QuantizationName
from assets.models.vram import DeploymentMemory, VramEstimate, quick_vram_bytes


@dataclass(frozen=True, slots=True)
class Cell:
    """One configuration and its verdict: feasible, or rejected for one reason."""

    configuration: Configuration
    vram: VramEstimate
    vram_quick_estimate_bytes: int
    rejection: Rejection | None

    @property
    def feasible(self) -> bool:
        return self.rejection is None


@dataclass(frozen=True)
class Matrix:
    """All cells of one model, in a fixed order: hardware, engine, quantization, workload, load level."""

    model_id: str
    cells: tuple[Cell, ...]
    split_batches_by_workload: bool = False

    @property
    def generated(self) -> int:
        return len(self.cells)

    @cached_property
    def feasible(self) -> int:
        """How many configurations can run."""
        return sum(cell.feasible for cell in self.cells)

    @cached_property
    def rejected(self) -> Mapping[str, int]:
        """How many configurations each rule rejects, most first."""
        return dict(Counter(cell.rejection.code for cell in self.cells if cell.rejection).most_common())

    @cached_property
    def model_versions(self) -> tuple[ModelVersion, ...]:
        """The model versions that occur, in order."""
        return tuple(dict.fromkeys(cell.configuration.deployment.model_version for cell in self.cells))

    @cached_property
    def hardware_ids(self) -> tuple[str, ...]:
        """The hardware configs that occur, in order."""
        return tuple(dict.fromkeys(cell.configuration.deployment.hardware_id for cell in self.cells))


def versions_of(facts: ModelFacts, dimensions: Dimensions) -> tuple[ModelVersion, ...]:
    """One model version for each quantization of the dimensions, at the facts' revision."""
    return tuple(ModelVersion(facts.model_id, quantization, facts.revision) for quantization in dimensions.quantizations)


def generate(facts: ModelFacts, dimensions: Dimensions, versions: Sequence[ModelVersion] | None = None) -> Matrix:
    """Every configuration of a model over the dimensions, each with its memory estimate and its one verdict.

    `versions` are those that there are; those whose quantization the dimensions do not have are left out. None: all quantizations
    of the dimensions.

    Raises:
        MatrixModelError: a version belongs to another model.
    """
    chosen = versions_of(facts, dimensions) if versions is None else versions
    for version in chosen:
        if version.model_id != facts.model_id:
            raise MatrixModelError(f"a version of {version.model_id} was given for the matrix of {facts.model_id}")
    quantized = [(v, q) for q in dimensions.quantizations for v in chosen if v.quantization == q]
    points = tuple(
        LoadPoint(workload, "closed", concurrency) for workload in dimensions.workloads for concurrency in dimensions.concurrencies
    )
    suffixes = tuple(b',"load_point":' + canonical_json(point.spec) + b"}" for point in points)
    cells = tuple(
        cell
        for hardware in dimensions.hardware
        for framework in dimensions.frameworks
        for version, quantization in quantized
        for cell in _deployment_cells(
            facts=facts,
            hardware=hardware,
            framework=framework,
            version=version,
            quantization=quantization,
            points=points,
            suffixes=suffixes,
        )
    )
    return Matrix(facts.model_id, cells, dimensions.split_batches_by_workload)


def _deployment_cells(
    *,
    facts: ModelFacts,
    hardware: HardwareConfig,
    framework: Framework,
    version: ModelVersion,
    quantization: QuantizationName,
    points: Sequence[LoadPoint],
    suffixes: Sequence[bytes],
) -> Iterator[Cell]:
    tensor_parallel = hardware.devices
    deployment = Deployment(
        version,
        framework.framework,
        framework.version,
        hardware.hardware_id,
        tensor_parallel,
        framework.launch_flags(facts, quantization),
    )
    launch = Launch(facts, quantization, framework, hardware)
    rejection = reject_launch(launch)
    memory = DeploymentMemory(facts, QUANTIZATIONS[quantization], framework.memory, hardware.memory_bytes_per_device, tensor_parallel)
    quick = quick_vram_bytes(facts.params, QUANTIZATIONS[quantization].weight_bits)
    prefix = hashlib.sha256(b'{"deployment":' + canonical_json(deployment.spec))
    for point, suffix in zip(points, suffixes, strict=True):
        digest = prefix.copy()
        digest.update(suffix)
        configuration = Configuration(deployment, point)
        # Fills the cached property with what it would compute (a test compares all of them).
        configuration.__dict__["config_id"] = digest.hexdigest()[:32]
        workload = point.workload
        vram = memory.at(point.concurrency or 1, workload.input_tokens + workload.output_tokens)
        yield Cell(configuration, vram, quick, rejection or reject_load(Load(launch, point, vram)))


def matrices_of(facts: ModelFacts, versions: Sequence[ModelVersion] | None = None) -> tuple[Matrix, ...]:
    """The matrices of a model: `gpu` where it has weights that GPU engines load, `local` where it has GGUF files; both where both apply.

    `versions` are those whose weights are in place: GGUF quantizations among them are measured as they are. None where that is not known
    yet: then a model with GGUF files has all of them. GPU engines quantize or find weights for themselves, so every quantization of
    the preset is generated.

    Raises:
        MatrixModelError: the model is in no format that an engine here reads.
    """
    local = preset("local")
    matrices = []
    if "safetensors" in facts.formats:
        matrices.append(generate(facts, preset("gpu")))
    if versions is None and "gguf" in facts.formats:
        matrices.append(generate(facts, local))
    elif gguf := [version for version in versions or () if version.quantization in local.quantizations]:
        matrices.append(generate(facts, local, gguf))
    if not matrices:
        formats = ", ".join(facts.formats) or "no format at all"
        raise MatrixModelError(f"{facts.name} comes in {formats}: there are no weights of it that an engine here reads")
    return tuple(matrices)
