"""What an engine's last words mean: patterns, the type of failure that each stands for, and what to do about it.

Most engines are Python programs on PyTorch and CUDA, and fail in their words; a driver puts its engine's own before them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from assets.benchmark.engines.protocol import (
    BadFlagError,
    CorruptWeightsError,
    DriverError,
    EngineError,
    OutOfMemoryError,
    PortTakenError,
    UnsupportedModelError,
)

_SIGKILL_EXIT_CODES = (-9, 137)
_LONGEST_LINE = 500

PORT_ADVICE = "its port is taken by another process: free it, or let Dyno choose one"
MEMORY_ADVICE = (
    "there is not enough memory for the weights and the KV cache: use a smaller model, fewer concurrent requests, or a larger machine"
)
WEIGHTS_ADVICE = "the model's files are missing or damaged: materialize the `model` asset again"
MODEL_ADVICE = "it does not support this model, or not in this quantization on this GPU: use another engine, quantization or GPU"
FLAG_ADVICE = "the engine does not know one of its flags, or a flag's value"
DRIVER_ADVICE = "the GPU or its driver is at fault: run `nvidia-smi` on that machine, and retry on another"


@dataclass(frozen=True, slots=True)
class Symptom:
    """Words of an engine's log (a regular expression), the failure that they stand for, and what to do."""

    words: str
    error: type[EngineError]
    advice: str


# Memory comes before the driver's faults, which CUDA reports as errors too; the rest in the order of how sure their words are.
PYTORCH: tuple[Symptom, ...] = (
    Symptom(
        # torch/cuda: c10/cuda/CUDACachingAllocator.cpp; CPU: c10/core/impl/alloc_cpu.cpp; CUDA's own words: cudaErrorMemoryAllocation
        r"CUDA out of memory|OutOfMemoryError|CUDA error: out of memory|DefaultCPUAllocator: (?:can't|not enough)|Cannot allocate memory"
        r"|(?m:^MemoryError)|(?m:^ray\.exceptions\.OutOfMemoryError)|failed to allocate memory",
        OutOfMemoryError,
        MEMORY_ADVICE,
    ),
    # errno 98 in the words of asyncio, uvicorn and torch.distributed
    Symptom(r"\[Errno 98\]|[Aa]ddress already in use|EADDRINUSE|error while attempting to bind on address", PortTakenError, PORT_ADVICE),
    Symptom(
        # CUDA's runtime (cudaGetErrorString), torch/cuda/__init__.py (_cuda_init), NVML (nvmlErrorString), the kernel's Xid messages
        r"CUDA driver version is insufficient|NVIDIA driver on your system is too old|Found no NVIDIA driver"
        r"|no CUDA-capable device is detected|No CUDA GPUs are available|Driver/library version mismatch|NVML Shared Library Not Found"
        r"|GPU is lost|fallen off the bus"
        r"|uncorrectable ECC error|Unexpected error from cudaGetDeviceCount"
        r"|CUDA_ERROR_(?:NO_DEVICE|SYSTEM_DRIVER_MISMATCH|SYSTEM_NOT_READY)"
        r"|system not yet initialized|CUDA unknown error|CUDA-capable device\(s\) is/are busy|unspecified launch failure",
        DriverError,
        DRIVER_ADVICE,
    ),
    Symptom(
        # safetensors/src/tensor.rs; torch.load of a torn file; transformers and huggingface_hub on a folder without the files
        r"SafetensorError|Error while deserializing header|PytorchStreamReader failed|invalid load key|not a valid JSON file"
        r"|does not appear to have a file named|[Nn]o such file or directory.*\.(?:safetensors|bin|json)|size mismatch for"
        r"|You set `?ignore_mismatched_sizes`? to `?False",
        CorruptWeightsError,
        WEIGHTS_ADVICE,
    ),
    Symptom(
        # transformers/models/auto/configuration_auto.py
        r"does not recognize this architecture|Unrecognized model in|is not supported for the current GPU|requires compute capability",
        UnsupportedModelError,
        MODEL_ADVICE,
    ),
    # argparse; typer and click (with rich's frame around the sentence, or without)
    Symptom(
        r"error: (?:unrecognized arguments|argument |the following arguments|ambiguous option)"
        r"|No such option|Invalid value for|Got unexpected extra arg",
        BadFlagError,
        FLAG_ADVICE,
    ),
)


def read_symptoms(engine: str, symptoms: Sequence[Symptom], log_tail: str, exit_code: int) -> EngineError | None:
    """The first symptom that the log shows, or the kernel's out-of-memory killer behind a SIGKILL; None where there is neither."""
    for symptom in symptoms:
        found = re.search(symptom.words, log_tail)
        if found:
            start = log_tail.rfind("\n", 0, found.start()) + 1
            line = log_tail[start:].splitlines()[0].strip()
            return symptom.error(f"{engine} did not start: {symptom.advice} ({line[:_LONGEST_LINE]})")
    if exit_code in _SIGKILL_EXIT_CODES:
        return OutOfMemoryError(f"{engine} was killed (SIGKILL), which is what the kernel does when memory runs out")
    return None
