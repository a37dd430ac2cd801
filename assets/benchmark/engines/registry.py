"""The engines that this worker can drive."""

from __future__ import annotations

from assets.benchmark.engines.external import External
from assets.benchmark.engines.llamacpp import LlamaCpp
from assets.benchmark.engines.lmdeploy import LmDeploy
from assets.benchmark.engines.protocol import EngineDriver, UnknownEngineError
from assets.benchmark.engines.sglang import SgLang
from assets.benchmark.engines.tensorrt_llm import TensorRtLlm
from assets.benchmark.engines.tgi import Tgi
from assets.benchmark.engines.transformers_serve import TransformersServe
from assets.benchmark.engines.vllm import Vllm
from assets.benchmark.load.server_counters import EngineMetrics, merged

_LAUNCHED: tuple[EngineDriver, ...] = (Vllm(), Tgi(), LmDeploy(), SgLang(), TensorRtLlm(), LlamaCpp(), TransformersServe())

# What reads the metrics page of any of them, and where those pages may be.
ALL_METRICS: EngineMetrics = merged(driver.metrics for driver in _LAUNCHED)
METRICS_PATHS: tuple[str, ...] = tuple(dict.fromkeys(driver.metrics_path for driver in _LAUNCHED if driver.metrics_path is not None))

DRIVERS: dict[str, EngineDriver] = {driver.name: driver for driver in (*_LAUNCHED, External(ALL_METRICS))}


def metrics_paths(driver: EngineDriver) -> tuple[str, ...]:
    """Where the engine's Prometheus page may be: of an external server, wherever any engine has one."""
    if driver.metrics is ALL_METRICS:
        return METRICS_PATHS
    return () if driver.metrics_path is None else (driver.metrics_path,)


def driver_for(framework: str) -> EngineDriver:
    """The driver of a framework. Raises UnknownEngineError."""
    try:
        return DRIVERS[framework]
    except KeyError:
        raise UnknownEngineError(f"this worker has no driver for {framework!r}: it has {', '.join(sorted(DRIVERS))}") from None
