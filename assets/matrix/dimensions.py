"""What the matrix is made of: hardware, prices, engines, workloads, use cases and the presets that multiply them.

The facts are in `data/*.yaml`, each with its source. They are read into frozen dataclasses; an unknown key is an error.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from assets.matrix.errors import DimensionDataError, UnknownDimensionError
from assets.matrix.spec import HardwareConfig, Workload
from assets.models.facts import ModelFacts, QuantizationName
from assets.models.vram import EngineMemory

DATA = Path(__file__).parent / "data"
MIB = 1 << 20
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_STRICT = ConfigDict(extra="forbid")

PresetName = Literal["gpu", "local"]
Flags = Mapping[str, str | int | float | bool]
T = TypeVar("T")


@validated(frozen=True, config=_STRICT)
class GpuType:
    """One type of GPU and how many of them a machine may have. Memory is what the driver reports."""

    gpu_type: str
    slug: str
    counts: tuple[int, ...]
    memory_mib: int
    memory_bandwidth_gb_per_s: float
    compute_capability: float
    source: str


@validated(frozen=True, config=_STRICT)
class Price:
    """What a hardware config costs by the hour at one provider on one day. `note` says what is a share of a node, and whose spot price."""

    hardware_id: str
    provider: str
    region: str
    instance: str
    as_of: date
    on_demand_usd_per_hour: float | None
    spot_usd_per_hour: float | None
    note: str
    source: str


@validated(frozen=True, config=_STRICT)
class QuantizationSupport:
    """What an engine needs to compute a quantization. `min_compute_capability` is None where no GPU is needed."""

    source: str
    min_compute_capability: float | None = None
    flags: Flags | None = None


@validated(frozen=True, config=_STRICT)
class Framework:
    """An engine at a version: what it can run where, how it is launched, and what it does with a device's memory."""

    framework: str
    version: str
    source: str
    max_concurrency: int
    replicates_kv_heads: bool
    flags: Flags
    memory: EngineMemory
    quantizations: Mapping[QuantizationName, QuantizationSupport]
    architectures: Mapping[str, Literal["all"] | tuple[QuantizationName, ...]]
    int4_groups_must_divide: bool = False
    context_flag: str | None = None
    context_limit_tokens: int | None = None

    def quantizes(self, architecture: str, quantization: str) -> bool:
        """Whether the engine runs this architecture in this quantization, on whatever GPU."""
        of_architecture = self.architectures.get(architecture, ())
        return quantization in self.quantizations and (of_architecture == "all" or quantization in of_architecture)

    def context_tokens(self, facts: ModelFacts) -> int:
        """The most tokens, input and output, that one request may have on a deployment of this model."""
        return min(facts.max_context_tokens, self.context_limit_tokens or facts.max_context_tokens)

    def launch_flags(self, facts: ModelFacts, quantization: QuantizationName) -> dict[str, str | int | float | bool]:
        """The flags of every deployment of this model version: none of them depends on a load point."""
        flags = dict(self.flags)
        if self.context_flag is not None:
            flags[self.context_flag] = self.context_tokens(facts)
        support = self.quantizations.get(quantization)
        return flags | dict(support.flags or {}) if support else flags


@validated(frozen=True, config=_STRICT)
class UseCase:
    """What people want a model for, the workloads that stand for it, an example load, and the bounds used where none are given."""

    use_case: str
    title: str
    description: str
    workloads: tuple[str, ...]
    default_rps: float
    default_input_tokens: int
    default_output_tokens: int
    sla_ttft_p90_ms: float
    sla_tpot_p90_ms: float
    sla_source: str


@validated(frozen=True, config=_STRICT)
class Preset:
    """Names of what is multiplied."""

    description: str
    hardware: tuple[str, ...]
    frameworks: tuple[str, ...]
    quantizations: tuple[QuantizationName, ...]
    workloads: tuple[str, ...]
    concurrencies: tuple[int, ...]
    split_batches_by_workload: bool


@validated(frozen=True, config=_STRICT)
class _WorkloadEntry:
    name: str
    input_tokens: int
    output_tokens: int
    description: str


@validated(frozen=True, config=_STRICT)
class _HardwareFile:
    gpus: tuple[GpuType, ...]


@dataclass(frozen=True, slots=True)
class Dimensions:
    """What is multiplied, in order: hardware x frameworks x quantizations x workloads x closed-loop concurrencies."""

    hardware: tuple[HardwareConfig, ...]
    frameworks: tuple[Framework, ...]
    quantizations: tuple[QuantizationName, ...]
    workloads: tuple[Workload, ...]
    concurrencies: tuple[int, ...]
    split_batches_by_workload: bool = False

    @property
    def size(self) -> int:
        """How many configurations one model has."""
        return len(self.hardware) * len(self.frameworks) * len(self.quantizations) * len(self.workloads) * len(self.concurrencies)

    def only(
        self,
        hardware: Sequence[str] = (),
        frameworks: Sequence[str] = (),
        quantizations: Sequence[str] = (),
        workloads: Sequence[str] = (),
    ) -> Dimensions:
        """Only what is named; an empty list keeps everything."""
        return replace(
            self,
            hardware=tuple(h for h in self.hardware if not hardware or h.hardware_id in hardware),
            frameworks=tuple(f for f in self.frameworks if not frameworks or f.framework in frameworks),
            quantizations=tuple(q for q in self.quantizations if not quantizations or q in quantizations),
            workloads=tuple(w for w in self.workloads if not workloads or w.name in workloads),
        )


def parse(kind: type[T], text: str, where: str) -> T:
    """Read YAML text as `kind`. Raises DimensionDataError that names the entry and what is wrong with it."""
    try:
        # The C loader reads the files in a tenth of the time; the wheels have it everywhere.
        data: Any = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
        return TypeAdapter(kind).validate_python(data)
    except yaml.YAMLError as error:
        raise DimensionDataError(f"{where} is not YAML: {error}") from None
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False, include_url=False)[:5]
        )
        raise DimensionDataError(f"{where}: {problems}") from None


def _read(kind: type[T], name: str) -> T:
    return parse(kind, (DATA / name).read_text(encoding="utf-8"), f"assets/matrix/data/{name}")


def host_memory_bytes() -> int:
    """Memory of this machine, or of the container that it is confined to, in bytes."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in CGROUP_LIMITS:
        try:
            limit = path.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if limit.isdigit():
            total = min(total, int(limit))
    return total


def cpu_hardware(memory_bytes: int | None = None) -> HardwareConfig:
    """This machine without a GPU. Its memory is read now; its bandwidth is not known (0)."""
    return HardwareConfig(
        "cpu", "cpu", 0, host_memory_bytes() if memory_bytes is None else memory_bytes, 0.0, None, "memory: read from the operating system"
    )


@cache
def load_hardware() -> Mapping[str, HardwareConfig]:
    """Every hardware config by its id: GPU types times counts, and `cpu`."""
    configs = [
        HardwareConfig(
            f"{gpu.slug}-x{count}",
            gpu.gpu_type,
            count,
            gpu.memory_mib * MIB,
            gpu.memory_bandwidth_gb_per_s * 1e9,
            gpu.compute_capability,
            gpu.source,
        )
        for gpu in _read(_HardwareFile, "hardware.yaml").gpus
        for count in gpu.counts
    ]
    return {config.hardware_id: config for config in (*configs, cpu_hardware())}


@cache
def load_prices() -> tuple[Price, ...]:
    """Prices of the hardware configs, in US dollars per hour."""
    prices = _read(tuple[Price, ...], "prices.yaml")
    for price in prices:
        _known("hardware config", price.hardware_id, load_hardware())
    return prices


@cache
def load_frameworks() -> Mapping[str, Framework]:
    """Every engine by its name."""
    return {framework.framework: framework for framework in _read(tuple[Framework, ...], "frameworks.yaml")}


@cache
def load_workloads() -> Mapping[str, Workload]:
    """Every workload by its name, in the order in which batches are cut."""
    entries = _read(tuple[_WorkloadEntry, ...], "workloads.yaml")
    return {w.name: Workload(w.name, w.input_tokens, w.output_tokens, w.description) for w in entries}


@cache
def load_use_cases() -> tuple[UseCase, ...]:
    """The taxonomy of use cases."""
    use_cases = _read(tuple[UseCase, ...], "use_cases.yaml")
    for use_case in use_cases:
        for workload in use_case.workloads:
            _known("workload", workload, load_workloads())
    return use_cases


@cache
def load_presets() -> Mapping[str, Preset]:
    """Every preset by its name."""
    return _read(dict[str, Preset], "presets.yaml")


@cache
def preset(name: PresetName) -> Dimensions:
    """The dimensions of a preset: `gpu`, the full matrix of 9,000, or `local`, what this machine can measure.

    Raises:
        DimensionDataError: a data file is wrong.
        UnknownDimensionError: the preset names something that no data file has.
    """
    chosen = _known("preset", name, load_presets())
    hardware, frameworks, workloads = load_hardware(), load_frameworks(), load_workloads()
    return Dimensions(
        tuple(_known("hardware config", h, hardware) for h in chosen.hardware),
        tuple(_known("framework", f, frameworks) for f in chosen.frameworks),
        chosen.quantizations,
        tuple(_known("workload", w, workloads) for w in chosen.workloads),
        chosen.concurrencies,
        chosen.split_batches_by_workload,
    )


def _known(kind: str, name: str, entries: Mapping[str, T]) -> T:
    if name not in entries:
        raise UnknownDimensionError(kind, name, entries)
    return entries[name]
