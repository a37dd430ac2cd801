"""What goes into the worker and what comes out: the job, the protocol of measurement, and one measurement.

All are plain JSON on disk, so that a pod, a subprocess and a test speak the same language.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

MeasurementKind = Literal["measured", "published", "estimated", "simulated"]


@dataclass(frozen=True, slots=True)
class Protocol:
    """How one load point is measured. A measurement made under one protocol does not count as one made under another.

    A load point gets at least `min_requests`, or `requests_per_stream` for each stream if that is more, and then as many more as it takes
    to know its deciding percentiles to within +-`precision` (a share of their value), up to `max_requests`.
    """

    name: str
    warmup_requests: int
    min_requests: int
    max_requests: int
    requests_per_stream: int
    precision: float
    request_timeout_s: float
    description: str


# What a steady window takes (assets/benchmark/load/steady_state.py): the first wave, five latencies, and the wave in which streams run dry.
STEADY_REQUESTS_PER_STREAM = 7

PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        Protocol(
            name="standard",
            warmup_requests=10,
            min_requests=100,
            max_requests=500,
            requests_per_stream=STEADY_REQUESTS_PER_STREAM,
            precision=0.05,
            request_timeout_s=300.0,
            description="100 to 500 requests a load point (7 a stream if that is more), until TTFT, TPOT and e2e p90 are known to 5 %",
        ),
        Protocol(
            name="demo",
            warmup_requests=10,
            min_requests=20,
            max_requests=20,
            requests_per_stream=2,
            precision=0.05,
            request_timeout_s=120.0,
            description="20 requests a load point, or two a stream if that is more, after 10 warm-up requests: wide intervals",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Job:
    """One batch for one worker. `model_path` is the file or folder that the engine loads, on the worker's side; `checkpoint_dir` a folder
    there, or the URL of one in an object storage.

    `configurations` may be what remains of a batch; `launch_parallel` (requests at once) and `launch_tokens_per_request` (prompt and
    output) are the maxima of the whole batch, for which the engine is launched. `engine_environments` is the folder with a Python
    environment for each engine that is not in Dyno's own. With `engine_url` nothing is launched: the engine is there already, and serves
    the model as `served_model_name`.
    """

    partition_key: str
    deployment: Mapping[str, object]
    deployment_id: str
    configurations: tuple[Mapping[str, object], ...]
    model_path: str
    tokenizer_path: str | None
    protocol: str
    checkpoint_dir: str
    launch_parallel: int
    launch_tokens_per_request: int
    repeat: int = 0
    seed: int = 0
    engine_start_timeout_s: float = 300.0
    engine_environments: str | None = None
    engine_url: str | None = None
    served_model_name: str = "model"


@dataclass(frozen=True, slots=True)
class Summary:
    """A distribution of requests (of gaps for ITL), in milliseconds. All None where nothing was measured."""

    mean: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class TelemetrySample:
    """One reading of one device. `device` is `host`, `engine` or `gpu<N>`."""

    sampled_at: str
    device: str
    utilization_pct: float | None
    memory_bytes: int | None
    power_w: float | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One load point measured once. Immutable; appended, never overwritten. Instants are ISO 8601 in UTC."""

    measurement_id: str
    config_id: str
    partition_key: str
    protocol: str
    repeat: int
    kind: MeasurementKind
    measured_at: str
    duration_s: float
    requests_sent: int
    requests_completed: int
    requests_failed: int
    failures: Mapping[str, int]
    ttft_ms: Summary
    tpot_ms: Summary
    itl_ms: Summary
    e2e_ms: Summary
    requests_per_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    input_tokens_mean: float | None
    output_tokens_mean: float | None
    concurrency_mean: float
    intervals: Mapping[str, tuple[float, float]]
    cpu_utilization_pct: float | None
    engine_memory_bytes_max: int | None
    gpu_utilization_pct: float | None
    gpu_memory_bytes_max: int | None
    engine: Mapping[str, object]
    host: Mapping[str, object]
    quality_flags: tuple[str, ...] = ()
    telemetry: tuple[TelemetrySample, ...] = ()
    artifact: Mapping[str, object] = field(default_factory=dict)
