"""Measurements in, exactly once: checkpoint, result, telemetry and provenance stand or fall together."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, get_args
from uuid import UUID

from sqlalchemy import Connection, distinct, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DataError, IntegrityError

from assets.benchmark.job import Measurement, MeasurementKind, Summary
from assets.catalog import provenance, tables
from assets.catalog.errors import InvalidMeasurementError, UnknownConfigurationError
from assets.catalog.timeseries import Month

_METRICS = ("ttft", "tpot", "itl", "e2e")
_COPIED = (
    "config_id", "kind", "protocol", "repeat", "duration_s", "requests_sent", "requests_completed", "requests_failed", "requests_per_s",
    "output_tokens_per_s", "total_tokens_per_s", "input_tokens_mean", "output_tokens_mean", "concurrency_mean", "cpu_utilization_pct",
    "engine_memory_bytes_max", "gpu_utilization_pct", "gpu_memory_bytes_max",
)  # fmt: skip


def months_of(measurement: Measurement) -> set[Month]:
    """The months that the measurement's rows fall into. Raises InvalidMeasurementError on an instant that is not one."""
    instants = [measurement.measured_at, *{sample.sampled_at for sample in measurement.telemetry}]
    return {Month.of(_instant(measurement, instant)) for instant in instants}


def add(connection: Connection, measurement: Measurement, run_id: str | None, *, tool_version: str) -> bool:
    """Insert one measurement in the caller's transaction; False when its load point is already in under this protocol and repeat.

    A later success clears `needs_review` of the batch's failures. Raises UnknownConfigurationError and InvalidMeasurementError;
    nothing is stored then, provided that the caller rolls back.
    """
    _check(measurement)
    if not connection.scalar(select(exists().where(tables.BenchmarkConfig.config_id == measurement.config_id))):
        raise UnknownConfigurationError(
            f"measurement {measurement.measurement_id} is of configuration {measurement.config_id}, which is not in the catalog: "
            "materialize test_matrix for its model first; the measurement was not stored"
        )
    if not _claim(connection, measurement, run_id):
        return False
    try:
        _insert(connection, measurement, tool_version)
    except (DataError, IntegrityError) as error:
        raise _invalid(measurement, str(error.orig).strip().splitlines()[0]) from error
    connection.execute(
        update(tables.JobFailure)
        .where(tables.JobFailure.partition_key == measurement.partition_key, tables.JobFailure.needs_review)
        .values(needs_review=False)
    )
    return True


def _insert(connection: Connection, measurement: Measurement, tool_version: str) -> None:
    origin = provenance.record(connection, _origin(measurement, tool_version))
    connection.execute(insert(tables.BenchmarkResult).values(_row(measurement, origin)))
    telemetry = [
        {**asdict(sample), "measurement_id": UUID(measurement.measurement_id), "sampled_at": _instant(measurement, sample.sampled_at)}
        for sample in measurement.telemetry
    ]
    if telemetry:
        # two samples of one device at one instant are one sample
        connection.execute(insert(tables.GpuTelemetry).on_conflict_do_nothing(), telemetry)


def done(connection: Connection, config_ids: Collection[str], protocol: str, repeat: int) -> set[str]:
    """Those of `config_ids` that are measured under this protocol at this repeat."""
    checkpoint = tables.JobCheckpoint
    found = connection.scalars(
        select(checkpoint.config_id).where(
            checkpoint.config_id.in_(config_ids), checkpoint.protocol == protocol, checkpoint.repeat == repeat
        )
    )
    return set(found)


def next_repeat(connection: Connection, config_ids: Collection[str], protocol: str) -> int:
    """The lowest repeat at which at least one of `config_ids` is not measured yet; 0 for none."""
    checkpoint = tables.JobCheckpoint
    counts = connection.execute(
        select(checkpoint.repeat, func.count(distinct(checkpoint.config_id)))
        .where(checkpoint.config_id.in_(config_ids), checkpoint.protocol == protocol)
        .group_by(checkpoint.repeat)
    )
    complete = {repeat for repeat, count in counts if count == len(set(config_ids))}
    repeat = 0
    while repeat in complete:
        repeat += 1
    return repeat


def _claim(connection: Connection, measurement: Measurement, run_id: str | None) -> bool:
    """Insert the checkpoint row; a concurrent writer of the same load point waits here until our transaction ends."""
    claimed = connection.scalar(
        insert(tables.JobCheckpoint)
        .values(
            config_id=measurement.config_id,
            protocol=measurement.protocol,
            repeat=measurement.repeat,
            measurement_id=UUID(measurement.measurement_id),
            partition_key=measurement.partition_key,
            run_id=run_id,
            completed_at=func.clock_timestamp(),
        )
        .on_conflict_do_nothing()
        .returning(tables.JobCheckpoint.config_id)
    )
    if claimed is not None:
        return True
    if not done(connection, [measurement.config_id], measurement.protocol, measurement.repeat):
        raise InvalidMeasurementError(
            f"measurement id {measurement.measurement_id} belongs to another load point already; the measurement of "
            f"{measurement.config_id} was not stored"
        )
    return False


def _origin(measurement: Measurement, tool_version: str) -> provenance.Origin:
    """What made the measurement. An importer names its own tool and file in `artifact`; a worker's evidence is its requests file."""
    artifact = measurement.artifact
    folder = f"checkpoints/{measurement.partition_key}/{measurement.protocol}-r{measurement.repeat}"
    evidence = f"{folder}/{artifact['requests']}" if "requests" in artifact else folder
    return provenance.Origin(
        tool=str(artifact.get("tool", "dyno")),
        tool_version=str(artifact.get("tool_version", tool_version)),
        source_uri=str(artifact.get("source_uri", evidence)),
        file_sha256=_optional_text(artifact.get("sha256")),
        licence=_optional_text(artifact.get("licence")),
        host=measurement.host,
    )


def _row(measurement: Measurement, provenance_id: str) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(measurement, name) for name in _COPIED}
    for metric in _METRICS:
        summary: Summary = getattr(measurement, f"{metric}_ms")
        row |= {f"{metric}_{statistic}_ms": value for statistic, value in asdict(summary).items()}
    return row | {
        "measurement_id": UUID(measurement.measurement_id),
        "measured_at": _instant(measurement, measurement.measured_at),
        "provenance_id": provenance_id,
        "failures": dict(measurement.failures),
        "intervals": {name: list(bounds) for name, bounds in measurement.intervals.items()},
        "engine": dict(measurement.engine),
        "quality_flags": list(measurement.quality_flags),
    }


def _check(measurement: Measurement) -> None:
    try:
        UUID(measurement.measurement_id)
    except ValueError:
        raise _invalid(measurement, "its id is not a UUID") from None
    if measurement.kind not in get_args(MeasurementKind):
        raise _invalid(measurement, f"kind {measurement.kind!r} is none of {', '.join(get_args(MeasurementKind))}")
    if measurement.requests_sent != measurement.requests_completed + measurement.requests_failed:
        raise _invalid(
            measurement,
            f"{measurement.requests_sent} requests were sent, but {measurement.requests_completed} completed and "
            f"{measurement.requests_failed} failed",
        )
    if measurement.repeat < 0:
        raise _invalid(measurement, f"repeat {measurement.repeat} is negative")
    for path in _not_finite(asdict(measurement)):
        raise _invalid(measurement, f"{path} is not a finite number")


def _not_finite(value: object, path: str = "") -> list[str]:
    """Where NaN or infinity hides: PostgreSQL's JSON has no such numbers, and no average survives one."""
    if isinstance(value, float):
        return [] if math.isfinite(value) else [path]
    children: list[tuple[object, object]] = []
    if isinstance(value, Mapping):
        children = list(value.items())
    elif isinstance(value, list | tuple):
        children = list(enumerate(value))
    return [found for key, child in children for found in _not_finite(child, f"{path}.{key}" if path else str(key))]


def _instant(measurement: Measurement, written: str) -> datetime:
    try:
        instant = datetime.fromisoformat(written)
    except ValueError:
        raise _invalid(measurement, f"{written!r} is not an ISO 8601 instant") from None
    if instant.tzinfo is None:
        raise _invalid(measurement, f"{written!r} has no time zone; instants are in UTC")
    return instant


def _optional_text(value: object) -> str | None:
    return None if value is None else str(value)


def _invalid(measurement: Measurement, reason: str) -> InvalidMeasurementError:
    return InvalidMeasurementError(
        f"measurement {measurement.measurement_id} of configuration {measurement.config_id} was not stored: {reason}"
    )
