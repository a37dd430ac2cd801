"""Records for the tests of this folder."""

from __future__ import annotations

import uuid

from assets.benchmark.job import Measurement, Summary, TelemetrySample
from assets.matrix.spec import Batch, Configuration, Deployment, LoadPoint, ModelVersion, Workload


def measurement(config_id: str = "c" * 32, partition_key: str = "tiny__f16__llama.cpp__chat_short__0-1") -> Measurement:
    """A finished load point."""
    summary = Summary(2.0, 2.0, 3.0, 3.5, 3.9)
    return Measurement(
        measurement_id=str(uuid.uuid4()),
        config_id=config_id,
        partition_key=partition_key,
        protocol="demo",
        repeat=0,
        kind="measured",
        measured_at="2026-11-20T12:00:00+00:00",
        duration_s=1.5,
        requests_sent=20,
        requests_completed=19,
        requests_failed=1,
        failures={"timeout": 1},
        ttft_ms=summary,
        tpot_ms=summary,
        itl_ms=Summary(None, None, None, None, None),
        e2e_ms=summary,
        requests_per_s=12.7,
        output_tokens_per_s=400.0,
        total_tokens_per_s=1600.0,
        input_tokens_mean=96.0,
        output_tokens_mean=32.0,
        concurrency_mean=1.9,
        intervals={"ttft_p90_ms": (2.5, 3.5)},
        cpu_utilization_pct=50.0,
        engine_memory_bytes_max=1 << 30,
        gpu_utilization_pct=None,
        gpu_memory_bytes_max=None,
        engine={"name": "llama.cpp", "version": "1"},
        host={"logical_cores": 2},
        quality_flags=("few_requests", "request_failures"),
        telemetry=(TelemetrySample("2026-11-20T12:00:00.5+00:00", "host", 50.0, 1 << 30),),
    )


def batch(concurrencies: tuple[int, ...] = (1, 2, 4), framework_version: str = "1") -> Batch:
    """A batch of the local matrix."""
    deployment = Deployment(ModelVersion("tiny", "f16", "r"), "llama.cpp", framework_version, "cpu", flags={"threads": 1})
    workload = Workload("chat_short", 96, 32)
    configurations = tuple(Configuration(deployment, LoadPoint(workload, "closed", concurrency)) for concurrency in concurrencies)
    return Batch(f"tiny__f16__llama.cpp__chat_short__{deployment.deployment_id[:8]}-1", deployment, configurations)
