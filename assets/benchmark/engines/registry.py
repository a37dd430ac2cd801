"""The engines that this worker can drive."""

from __future__ import annotations

from assets.benchmark.engines.llamacpp import LlamaCpp
from assets.benchmark.engines.protocol import EngineDriver, UnknownEngineError

DRIVERS: dict[str, EngineDriver] = {driver.name: driver for driver in (LlamaCpp(),)}


def driver_for(framework: str) -> EngineDriver:
    """The driver of a framework. Raises UnknownEngineError."""
    try:
        return DRIVERS[framework]
    except KeyError:
        raise UnknownEngineError(f"this worker has no driver for {framework!r}: it has {', '.join(sorted(DRIVERS))}") from None
