"""Launches of every engine, with every option that its driver can write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from assets.benchmark.engines.protocol import BadFlagError, EngineDriver, FlagValue, Launch
from assets.models.facts import QUANTIZATIONS

LAUNCH = Launch("/models/llama", 8000, parallel=4, tokens_per_request=128)
# one of each kind, which every engine takes
VALUES: dict[type, tuple[FlagValue, ...]] = {int: (4096,), float: (0.5,), str: ("fp8",), bool: (True, False)}


def every_launch(driver: EngineDriver) -> Iterator[Launch]:
    """Launches that together write all that the driver can; those that it refuses are left out."""
    candidates = [replace(LAUNCH, quantization=quantization) for quantization in QUANTIZATIONS]
    candidates += [
        replace(LAUNCH, tensor_parallel=2),
        replace(LAUNCH, memory_fraction=0.5),
        replace(LAUNCH, prefix_caching=True),
        replace(LAUNCH, dummy_weights=True),
        *(replace(LAUNCH, dtype=dtype) for dtype in ("float16", "bfloat16")),
        *(replace(LAUNCH, kv_cache_dtype=dtype) for dtype in ("fp8", "fp8_e5m2", "int8", "int4")),
    ]
    candidates += [replace(LAUNCH, flags={name: value}) for name, option in driver.flags.items() for value in VALUES[option.kind]]
    base = replace(LAUNCH, quantization="q4_0" if driver.name == "llama.cpp" else "fp16")
    for launch in [base, *candidates]:
        try:
            driver.serve_command(launch)
        except BadFlagError:
            continue
        yield launch


def options_of(driver: EngineDriver) -> set[str]:
    """The names of all options on all those command lines."""
    lines = (driver.serve_command(launch) for launch in every_launch(driver))
    return {part.partition("=")[0] for line in lines for part in line if part.startswith("--")}
