"""A finished load point as a record: its statistics, what the machine did, and which engine it was."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from assets.benchmark.engines.attached import RunningEngine
from assets.benchmark.host import host_facts
from assets.benchmark.job import Measurement
from assets.benchmark.job_file import Plan, PlannedLoadPoint
from assets.benchmark.load.calibration import Calibration, client_verdict
from assets.benchmark.load.decode import RequestRecord
from assets.benchmark.load.session import LoadResult
from assets.benchmark.load.statistics import LoadStatistics
from assets.benchmark.load.steady_state import Window
from assets.benchmark.telemetry import Sampler


def build_measurement(
    plan: Plan,
    point: PlannedLoadPoint,
    statistics: LoadStatistics,
    sampler: Sampler,
    *,
    started_at: datetime,
    engine: Mapping[str, object],
    client: Mapping[str, object],
    quality_flags: tuple[str, ...],
) -> Measurement:
    """Everything that is known about one load point, measured once."""
    telemetry = sampler.summary()
    return Measurement(
        measurement_id=str(uuid.uuid4()),
        config_id=point.config_id,
        partition_key=plan.job.partition_key,
        protocol=plan.job.protocol,
        repeat=plan.job.repeat,
        kind="measured",
        measured_at=started_at.isoformat(),
        duration_s=statistics.duration_s,
        requests_sent=statistics.requests_sent,
        requests_completed=statistics.requests_completed,
        requests_failed=statistics.requests_failed,
        failures=statistics.failures,
        ttft_ms=statistics.ttft_ms,
        tpot_ms=statistics.tpot_ms,
        itl_ms=statistics.itl_ms,
        e2e_ms=statistics.e2e_ms,
        requests_per_s=statistics.requests_per_s,
        output_tokens_per_s=statistics.output_tokens_per_s,
        total_tokens_per_s=statistics.total_tokens_per_s,
        input_tokens_mean=statistics.input_tokens_mean,
        output_tokens_mean=statistics.output_tokens_mean,
        concurrency_mean=statistics.concurrency_mean,
        intervals=statistics.intervals,
        quality_flags=quality_flags,
        cpu_utilization_pct=telemetry.cpu_utilization_pct,
        engine_memory_bytes_max=telemetry.engine_memory_bytes_max,
        gpu_utilization_pct=telemetry.gpu_utilization_pct,
        gpu_memory_bytes_max=telemetry.gpu_memory_bytes_max,
        engine=engine,
        host={
            **host_facts(),
            "gpus": telemetry.gpu_names,
            "telemetry_notes": telemetry.notes,
            "client": dict(client),
        },
        telemetry=tuple(sampler.samples),
    )


def engine_facts(engine: RunningEngine, plan: Plan) -> Mapping[str, object]:
    """Which engine it was, and how it was launched. The model's folder is left out: it names the machine, not the engine."""
    launch = engine.launch
    model = Path(launch.model).name if launch.model_is_local else launch.model
    return {
        "name": engine.driver.name,
        "version": plan.framework_version,
        "launched": bool(engine.command),
        "flags": dict(plan.flags),
        "command": [part.replace(launch.model, model) for part in engine.command[1:]],
        "parallel": launch.parallel,
        "tokens_per_request": launch.tokens_per_request,
        "tensor_parallel": launch.tensor_parallel,
        "start_s": engine.start_s,
    }


def evidence_lines(records: Sequence[RequestRecord], origin_ns: int, window: Window) -> list[Mapping[str, object]]:
    """The requests as evidence, one mapping each: instants in milliseconds since the load point's start, and whether it counts."""
    lines: list[Mapping[str, object]] = []
    for record in records:
        line = asdict(record)
        for instant in ("due", "start", "end", "clock"):
            line[f"{instant}_ms"] = (line.pop(f"{instant}_ns") - origin_ns) / 1e6
        line["first_token_ms"] = None if record.ttft_ms is None else (record.clock_ns - origin_ns) / 1e6 + record.ttft_ms
        line["in_window"] = record.failure is None and record.start_ns >= window.start_ns
        lines.append(line)
    return lines


def client_facts(calibration: Calibration | None, result: LoadResult, statistics: LoadStatistics) -> dict[str, object]:
    """What is known of the load generator itself: how wrong it is on this machine, how late it was, what it cost.

    `error_ms` is of the calibration: |reported minus true| TTFT of single requests. `limited` says why the numbers are partly its own.
    """
    error = calibration.ttft_error_ms if calibration is not None else None
    return {
        "error_ms": {"p50": error.p50, "p99": error.p99} if error is not None else {"p50": None, "p99": None},
        "calibrated_transport": calibration.transport if calibration is not None else None,
        "calibrated_concurrency": calibration.concurrency if calibration is not None else None,
        "calibrated_rate_per_s": calibration.rate_per_s if calibration is not None else None,
        "schedule_lag_ms": {"p50": statistics.schedule_lag_ms.p50, "p99": statistics.schedule_lag_ms.p99},
        "receive_lag_ms": {"p50": statistics.receive_lag_ms.p50, "p99": statistics.receive_lag_ms.p99},
        "kernel_stamps": statistics.receive_lag_ms.p50 is not None,
        **asdict(result.client),
        "limited": client_verdict(
            calibration,
            statistics.schedule_lag_ms,
            result.client.cpu_share_max,
            ttft_p50_ms=statistics.ttft_ms.p50,
            e2e_p50_ms=statistics.e2e_ms.p50,
            scheduled=any(record.clock_ns != record.start_ns for record in result.records),
        ),
    }
