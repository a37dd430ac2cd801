"""What the catalog holds, for people: counts for the status, measurements for a table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, func, or_, select, text, update

from assets.catalog import tables


@dataclass(frozen=True, slots=True)
class CatalogSummary:
    """How much there is. `configurations` and `results` count by verdict (`feasible` or the rejection's code) and by kind."""

    catalog_version: int
    models: int
    model_versions: int
    hardware_configs: int
    configurations: Mapping[str, int]
    results: Mapping[str, int]
    batches: int
    batches_needing_review: int
    last_measured_at: datetime | None


@dataclass(frozen=True, slots=True)
class ResultCount:
    """How many measurements of one kind there are on one hardware config."""

    kind: str
    hardware_id: str
    results: int


@dataclass(frozen=True, slots=True)
class MeasuredPoint:
    """One measurement beside what was measured, for the tables of the command line. `intervals` are 95 % ones, low and high by metric."""

    measurement_id: UUID
    config_id: str
    partition_key: str
    model_id: str
    quantization: str
    framework: str
    framework_version: str
    hardware_id: str
    workload: str
    load_mode: str
    concurrency: int | None
    request_rate_per_s: float | None
    kind: str
    protocol: str
    repeat: int
    measured_at: datetime
    duration_s: float
    requests_sent: int
    requests_completed: int
    requests_failed: int
    ttft_p50_ms: float | None
    ttft_p90_ms: float | None
    tpot_p50_ms: float | None
    tpot_p90_ms: float | None
    e2e_p50_ms: float | None
    e2e_p90_ms: float | None
    requests_per_s: float
    output_tokens_per_s: float
    intervals: Mapping[str, Sequence[float]]
    quality_flags: Sequence[str]
    cpu_utilization_pct: float | None
    engine_memory_bytes_max: int | None


def catalog_version(connection: Connection) -> int:
    """The version of everything that the API reads."""
    return connection.execute(select(tables.CatalogState.version)).scalar_one()


def bump_catalog_version(connection: Connection) -> int:
    """Make caches forget: the next version, which is returned."""
    state = tables.CatalogState
    statement = update(state).values(version=state.version + 1, updated_at=func.clock_timestamp()).returning(state.version)
    return int(connection.execute(statement).scalar_one())


def summary(connection: Connection) -> CatalogSummary:
    """Counts of everything, in one transaction's view."""
    config, result = tables.BenchmarkConfig, tables.BenchmarkResult
    verdict = func.coalesce(config.rejection_code, text("'feasible'"))
    verdicts = connection.execute(select(verdict.label("verdict"), func.count().label("n")).group_by(verdict).order_by(func.count().desc()))
    kinds = connection.execute(select(result.kind, func.count().label("n")).group_by(result.kind).order_by(result.kind))
    failure = tables.JobFailure
    return CatalogSummary(
        catalog_version=catalog_version(connection),
        models=_count(connection, tables.Model),
        model_versions=_count(connection, tables.ModelVersion),
        hardware_configs=_count(connection, tables.HardwareConfig),
        configurations={row.verdict: row.n for row in verdicts},
        results={row.kind: row.n for row in kinds},
        batches=connection.execute(select(func.count(config.partition_key.distinct())).where(config.feasible)).scalar_one(),
        batches_needing_review=connection.execute(
            select(func.count(failure.partition_key.distinct())).where(failure.needs_review)
        ).scalar_one(),
        last_measured_at=connection.scalar(select(func.max(result.measured_at))),
    )


def result_counts(connection: Connection) -> list[ResultCount]:
    """Measurements by kind and hardware config."""
    result, config = tables.BenchmarkResult, tables.BenchmarkConfig
    rows = connection.execute(
        select(result.kind, config.hardware_id, func.count().label("results"))
        .join(config, config.config_id == result.config_id)
        .group_by(result.kind, config.hardware_id)
        .order_by(result.kind, config.hardware_id)
    )
    return [ResultCount(**row) for row in rows.mappings()]


def measurements_of(
    connection: Connection, *, partition_keys: Collection[str] = (), model_ids: Collection[str] = ()
) -> list[MeasuredPoint]:
    """Measurements of these batches or these models, all of them when neither is named; by model, deployment, workload and rising load.

    A measurement belongs to the batch that it was measured in.
    """
    result, config, version, checkpoint = tables.BenchmarkResult, tables.BenchmarkConfig, tables.ModelVersion, tables.JobCheckpoint
    sources = {c.name: c for table in (checkpoint, version, config, result) for c in table.__table__.columns}
    wanted = [sources[name] for name in MeasuredPoint.__slots__]
    statement = (
        select(*wanted)
        .select_from(result)
        .join(config, config.config_id == result.config_id)
        .join(version, version.model_version_id == config.model_version_id)
        .join(checkpoint, checkpoint.measurement_id == result.measurement_id)
        .order_by(
            version.model_id, version.quantization, config.framework, config.hardware_id, config.workload, config.load_mode,
            config.concurrency, config.request_rate_per_s, result.measured_at,
        )
    )  # fmt: skip
    if partition_keys or model_ids:
        statement = statement.where(or_(checkpoint.partition_key.in_(partition_keys), version.model_id.in_(model_ids)))
    return [MeasuredPoint(**row) for row in connection.execute(statement).mappings()]


def _count(connection: Connection, table: type[tables.Base]) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()
