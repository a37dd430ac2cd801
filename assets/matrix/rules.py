"""Why a configuration cannot run. Rules are data: a code, a sentence for people, and a check that gives the details of this case.

The first rule that fails, in the order of `DEPLOYMENT_RULES` and then `LOAD_POINT_RULES`, is the reason that is stored. What no
launch could change comes first (the engine has no code for the model); what a smaller load would change comes last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from assets.matrix.dimensions import Framework
from assets.matrix.spec import HardwareConfig, LoadPoint
from assets.models.facts import QUANTIZATIONS, ModelFacts, QuantizationName
from assets.models.vram import VramEstimate

GIB = 1 << 30
INT4_GROUP_SIZE = 128
# Bits of a weight of models that are shipped already quantized, by `ModelFacts.native_dtype` (AWQ and GPTQ: as is usual).
NATIVE_BITS = {
    "fp8": 8,
    "float8_e4m3fn": 8,
    "float8_e5m2": 8,
    "int8": 8,
    "mxfp8": 8,
    "int4": 4,
    "fp4": 4,
    "mxfp4": 4,
    "nvfp4": 4,
    "awq": 4,
    "gptq": 4,
}


@dataclass(frozen=True, slots=True)
class Launch:
    """What a deployment rule looks at."""

    facts: ModelFacts
    quantization: QuantizationName
    framework: Framework
    hardware: HardwareConfig

    @property
    def tensor_parallel(self) -> int:
        return self.hardware.devices


@dataclass(frozen=True, slots=True)
class Load:
    """What a load point rule looks at."""

    launch: Launch
    point: LoadPoint
    vram: VramEstimate


@dataclass(frozen=True, slots=True)
class DeploymentRule:
    """`check` gives the details where the rule is broken, None where it holds."""

    code: str
    sentence: str
    check: Callable[[Launch], str | None]


@dataclass(frozen=True, slots=True)
class LoadPointRule:
    """`check` gives the details where the rule is broken, None where it holds."""

    code: str
    sentence: str
    check: Callable[[Load], str | None]


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a configuration cannot run."""

    code: str
    detail: str


def _architecture(launch: Launch) -> str | None:
    if launch.facts.architecture in launch.framework.architectures:
        return None
    return f"{launch.framework.framework} {launch.framework.version} has no implementation of {launch.facts.architecture}"


def _quantization_of_engine(launch: Launch) -> str | None:
    if launch.framework.quantizes(launch.facts.architecture, launch.quantization):
        return None
    name = f"{launch.framework.framework} {launch.framework.version}"
    return f"{name} does not run {launch.facts.architecture} in {launch.quantization}"


def _quantization_on_gpu(launch: Launch) -> str | None:
    needed = launch.framework.quantizations[launch.quantization].min_compute_capability
    has = launch.hardware.compute_capability
    if needed is None or (has is not None and has >= needed):
        return None
    found = "there is no GPU" if has is None else f"{launch.hardware.gpu_type} has {has}"
    return f"{launch.quantization} in {launch.framework.framework} needs compute capability {needed} or higher, {found}"


def _native_precision(launch: Launch) -> str | None:
    native = NATIVE_BITS.get(launch.facts.native_dtype.lower())
    if native is None or QUANTIZATIONS[launch.quantization].weight_bits <= native:
        return None
    return f"the model is shipped in {launch.facts.native_dtype}: {launch.quantization} would hold the same weights in more memory"


def _heads(launch: Launch) -> str | None:
    if launch.facts.attention_heads % launch.tensor_parallel == 0:
        return None
    return f"{launch.facts.attention_heads} attention heads cannot be split over {launch.tensor_parallel} GPUs"


def _kv_heads(launch: Launch) -> str | None:
    # MLA has one latent for all heads, which every device keeps whole.
    kv_heads, tp = launch.facts.kv_heads, launch.tensor_parallel
    if launch.facts.kv_lora_rank is not None or kv_heads % tp == 0:
        return None
    if launch.framework.replicates_kv_heads and tp % kv_heads == 0:
        return None
    why = "cannot be replicated evenly" if launch.framework.replicates_kv_heads else f"{launch.framework.framework} does not replicate them"
    return f"{kv_heads} KV heads cannot be split over {tp} GPUs, and {why}"


def _int4_groups(launch: Launch) -> str | None:
    # A mixture of experts is split by experts where its width cannot be; models shipped in 4 bits come with groups of their own.
    native = NATIVE_BITS.get(launch.facts.native_dtype.lower(), 16)
    if launch.quantization != "int4" or not launch.framework.int4_groups_must_divide or launch.facts.experts or native <= 4:
        return None
    width, tp = launch.facts.intermediate_size, launch.tensor_parallel
    if tp == 1 or width % (tp * INT4_GROUP_SIZE) == 0:
        return None
    return f"{width} MLP columns over {tp} GPUs do not fall on groups of {INT4_GROUP_SIZE} weights"


def _concurrency(load: Load) -> str | None:
    limit = load.launch.framework.max_concurrency
    if load.point.concurrency is None or load.point.concurrency <= limit:
        return None
    return f"{load.point.concurrency} requests at once, {load.launch.framework.framework} is launched for at most {limit}"


def _context(load: Load) -> str | None:
    workload = load.point.workload
    needed = workload.input_tokens + workload.output_tokens
    limit = load.launch.framework.context_tokens(load.launch.facts)
    return None if needed <= limit else f"needs a context of {needed:,} tokens, {limit:,} available"


def _vram(load: Load) -> str | None:
    vram, hardware = load.vram, load.launch.hardware
    if vram.fits:
        return None
    share = f"{load.launch.framework.memory.memory_fraction:.0%} of {hardware.memory_bytes_per_device / GIB:.1f} GiB"
    per = " per GPU" if hardware.gpu_count else ""
    needs, has = vram.required_bytes_per_device / GIB, vram.available_bytes_per_device / GIB
    return f"needs {needs:.1f} GiB{per}, {has:.1f} GiB available ({share})"


DEPLOYMENT_RULES: tuple[DeploymentRule, ...] = (
    DeploymentRule("architecture_unsupported", "The engine implements the model's architecture.", _architecture),
    DeploymentRule(
        "quantization_unsupported_by_engine", "The engine runs this architecture in this quantization.", _quantization_of_engine
    ),
    DeploymentRule("quantization_unsupported_on_gpu", "The engine has kernels for the quantization on this GPU.", _quantization_on_gpu),
    DeploymentRule("native_precision_lower", "The quantization is no wider than what the model is shipped in.", _native_precision),
    DeploymentRule("tp_does_not_divide_heads", "The attention heads split evenly over the GPUs.", _heads),
    DeploymentRule("tp_does_not_divide_kv_heads", "The KV heads split, or are replicated, evenly over the GPUs.", _kv_heads),
    DeploymentRule("tp_does_not_divide_int4_groups", "Each GPU's share of the MLP is whole groups of 4-bit weights.", _int4_groups),
)

LOAD_POINT_RULES: tuple[LoadPointRule, ...] = (
    LoadPointRule("concurrency_above_limit", "The engine is launched for as many requests at once.", _concurrency),
    LoadPointRule("context_too_short", "Input and output fit the context.", _context),
    LoadPointRule("vram", "Weights, KV cache, activations and the engine fit the device's memory.", _vram),
)

RULES: tuple[DeploymentRule | LoadPointRule, ...] = (*DEPLOYMENT_RULES, *LOAD_POINT_RULES)


def reject_launch(launch: Launch) -> Rejection | None:
    """The first deployment rule that is broken: it rejects every load point of the deployment."""
    for rule in DEPLOYMENT_RULES:
        detail = rule.check(launch)
        if detail is not None:
            return Rejection(rule.code, detail)
    return None


def reject_load(load: Load) -> Rejection | None:
    """The first load point rule that is broken."""
    for rule in LOAD_POINT_RULES:
        detail = rule.check(load)
        if detail is not None:
            return Rejection(rule.code, detail)
    return None
