"""The catalog's tables. Units are in the names; an `_id` of 32 characters is a content hash (see assets.matrix.spec).

Alembic migrations in `migrations/` create them; `benchmark_results` and `gpu_telemetry` are time series: hypertables where TimescaleDB
is there, native range partitions by month otherwise. A unique constraint on a time series must contain its time column, so "once
only" is enforced by `job_checkpoints`, written in the same transaction as the result.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey, Index, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA = "catalog"
KINDS = ("measured", "published", "estimated", "simulated")


class Base(DeclarativeBase):
    metadata = MetaData(
        schema=SCHEMA,
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        },
    )
    type_annotation_map: ClassVar = {
        str: Text,
        int: BigInteger,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[str]: JSONB,
    }


class Model(Base):
    """A model, whatever its quantization: what its config.json says."""

    __tablename__ = "models"
    model_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    hub_id: Mapped[str | None]
    licence: Mapped[str | None]
    architecture: Mapped[str]
    params: Mapped[int]
    active_params: Mapped[int]
    max_context_tokens: Mapped[int]
    facts: Mapped[dict[str, Any]]
    source: Mapped[str]
    registered_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class ModelVersion(Base):
    """Model x quantization x weights revision. `last_registered_at` is NULL where only a matrix names it: its weights were never here."""

    __tablename__ = "model_versions"
    model_version_id: Mapped[str] = mapped_column(primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey(Model.model_id))
    quantization: Mapped[str]
    revision: Mapped[str]
    weights_bytes: Mapped[int | None]
    files: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    last_registered_at: Mapped[datetime | None]


class HardwareConfig(Base):
    """GPU type x count."""

    __tablename__ = "hardware_configs"
    hardware_id: Mapped[str] = mapped_column(primary_key=True)
    gpu_type: Mapped[str]
    gpu_count: Mapped[int]
    memory_bytes_per_device: Mapped[int]
    memory_bandwidth_bytes_per_s: Mapped[float]
    compute_capability: Mapped[float | None]
    source: Mapped[str]


class HardwarePrice(Base):
    """What a hardware config costs by the hour, at one provider on one day."""

    __tablename__ = "hardware_prices"
    hardware_id: Mapped[str] = mapped_column(ForeignKey(HardwareConfig.hardware_id), primary_key=True)
    provider: Mapped[str] = mapped_column(primary_key=True)
    region: Mapped[str] = mapped_column(primary_key=True)
    instance: Mapped[str] = mapped_column(primary_key=True)
    as_of: Mapped[datetime] = mapped_column(primary_key=True)
    on_demand_usd_per_hour: Mapped[float | None]
    spot_usd_per_hour: Mapped[float | None]
    note: Mapped[str]
    source: Mapped[str]


class InferenceFramework(Base):
    """An engine at a version, and the quantizations it reads."""

    __tablename__ = "inference_frameworks"
    framework: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    quantizations: Mapped[list[str]]
    source: Mapped[str]


class UseCase(Base):
    """A use case, the workloads that stand for it, and its default load and SLA."""

    __tablename__ = "use_case_taxonomy"
    use_case: Mapped[str] = mapped_column(primary_key=True)
    title: Mapped[str]
    description: Mapped[str]
    workloads: Mapped[list[str]]
    default_rps: Mapped[float]
    default_input_tokens: Mapped[int]
    default_output_tokens: Mapped[int]
    sla_ttft_p90_ms: Mapped[float]
    sla_tpot_p90_ms: Mapped[float]
    sla_source: Mapped[str]


class BenchmarkConfig(Base):
    """One cell of the matrix: a deployment at a load point; a rejected one keeps its reason."""

    __tablename__ = "benchmark_configs"
    config_id: Mapped[str] = mapped_column(primary_key=True)
    deployment_id: Mapped[str] = mapped_column(index=True)
    model_version_id: Mapped[str] = mapped_column(ForeignKey(ModelVersion.model_version_id), index=True)
    hardware_id: Mapped[str] = mapped_column(ForeignKey(HardwareConfig.hardware_id))
    framework: Mapped[str]
    framework_version: Mapped[str]
    flags: Mapped[dict[str, Any]]
    tensor_parallel: Mapped[int]
    partition_key: Mapped[str | None] = mapped_column(index=True)
    workload: Mapped[str]
    input_tokens: Mapped[int]
    output_tokens: Mapped[int]
    load_mode: Mapped[str]
    concurrency: Mapped[int | None]
    request_rate_per_s: Mapped[float | None]
    feasible: Mapped[bool]
    rejection_code: Mapped[str | None]
    rejection_detail: Mapped[str | None]
    vram_required_bytes: Mapped[int]
    vram_available_bytes: Mapped[int]
    vram_quick_estimate_bytes: Mapped[int]
    vram_parts: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    __table_args__ = (CheckConstraint("feasible = (rejection_code IS NULL)", name="rejected_with_a_reason"),)


class Provenance(Base):
    """Where a number comes from: the tool, the file, the machine."""

    __tablename__ = "provenance"
    provenance_id: Mapped[str] = mapped_column(primary_key=True)
    tool: Mapped[str]
    tool_version: Mapped[str]
    source_uri: Mapped[str]
    file_sha256: Mapped[str | None]
    licence: Mapped[str | None]
    host: Mapped[dict[str, Any]]
    recorded_at: Mapped[datetime]


class BenchmarkResult(Base):
    """One measurement. Immutable; appended, never overwritten. Hypertable on measured_at."""

    __tablename__ = "benchmark_results"
    measurement_id: Mapped[UUID] = mapped_column(primary_key=True)
    measured_at: Mapped[datetime] = mapped_column(primary_key=True)
    config_id: Mapped[str] = mapped_column(ForeignKey(BenchmarkConfig.config_id))
    kind: Mapped[str]
    protocol: Mapped[str]
    repeat: Mapped[int]
    provenance_id: Mapped[str] = mapped_column(ForeignKey(Provenance.provenance_id))
    duration_s: Mapped[float]
    requests_sent: Mapped[int]
    requests_completed: Mapped[int]
    requests_failed: Mapped[int]
    failures: Mapped[dict[str, Any]]
    ttft_mean_ms: Mapped[float | None]
    ttft_p50_ms: Mapped[float | None]
    ttft_p90_ms: Mapped[float | None]
    ttft_p95_ms: Mapped[float | None]
    ttft_p99_ms: Mapped[float | None]
    tpot_mean_ms: Mapped[float | None]
    tpot_p50_ms: Mapped[float | None]
    tpot_p90_ms: Mapped[float | None]
    tpot_p95_ms: Mapped[float | None]
    tpot_p99_ms: Mapped[float | None]
    itl_mean_ms: Mapped[float | None]
    itl_p50_ms: Mapped[float | None]
    itl_p90_ms: Mapped[float | None]
    itl_p95_ms: Mapped[float | None]
    itl_p99_ms: Mapped[float | None]
    e2e_mean_ms: Mapped[float | None]
    e2e_p50_ms: Mapped[float | None]
    e2e_p90_ms: Mapped[float | None]
    e2e_p95_ms: Mapped[float | None]
    e2e_p99_ms: Mapped[float | None]
    requests_per_s: Mapped[float]
    output_tokens_per_s: Mapped[float]
    total_tokens_per_s: Mapped[float]
    input_tokens_mean: Mapped[float | None]
    output_tokens_mean: Mapped[float | None]
    concurrency_mean: Mapped[float]
    intervals: Mapped[dict[str, Any]]
    cpu_utilization_pct: Mapped[float | None]
    engine_memory_bytes_max: Mapped[int | None]
    gpu_utilization_pct: Mapped[float | None]
    gpu_memory_bytes_max: Mapped[int | None]
    engine: Mapped[dict[str, Any]]
    quality_flags: Mapped[list[str]]
    __table_args__ = (
        CheckConstraint(f"kind IN {KINDS}", name="kind"),
        CheckConstraint("requests_sent = requests_completed + requests_failed", name="requests_add_up"),
        Index("ix_benchmark_results_config_id_measured_at", "config_id", "measured_at"),
        Index("ix_benchmark_results_measured_at", "measured_at", postgresql_using="brin"),
    )


class GpuTelemetry(Base):
    """What a device did while a load point ran. Hypertable on sampled_at."""

    __tablename__ = "gpu_telemetry"
    measurement_id: Mapped[UUID] = mapped_column(primary_key=True)
    device: Mapped[str] = mapped_column(primary_key=True)
    sampled_at: Mapped[datetime] = mapped_column(primary_key=True)
    utilization_pct: Mapped[float | None]
    memory_bytes: Mapped[int | None]
    power_w: Mapped[float | None]
    __table_args__ = (Index("ix_gpu_telemetry_sampled_at", "sampled_at", postgresql_using="brin"),)


class QualityResult(Base):
    """Accuracy of a model version on one task, with its standard error."""

    __tablename__ = "quality_results"
    model_version_id: Mapped[str] = mapped_column(ForeignKey(ModelVersion.model_version_id), primary_key=True)
    task: Mapped[str] = mapped_column(primary_key=True)
    measured_at: Mapped[datetime] = mapped_column(primary_key=True)
    kind: Mapped[str]
    accuracy: Mapped[float]
    accuracy_stderr: Mapped[float | None]
    samples: Mapped[int]
    provenance_id: Mapped[str] = mapped_column(ForeignKey(Provenance.provenance_id))
    __table_args__ = (
        CheckConstraint(f"kind IN {KINDS}", name="kind"),
        CheckConstraint("accuracy BETWEEN 0 AND 1", name="accuracy_is_a_share"),
    )


class JobCheckpoint(Base):
    """A load point that is done: its primary key is what makes a measurement happen once."""

    __tablename__ = "job_checkpoints"
    config_id: Mapped[str] = mapped_column(ForeignKey(BenchmarkConfig.config_id), primary_key=True)
    protocol: Mapped[str] = mapped_column(primary_key=True)
    repeat: Mapped[int] = mapped_column(primary_key=True)
    measurement_id: Mapped[UUID] = mapped_column(unique=True)
    partition_key: Mapped[str] = mapped_column(index=True)
    run_id: Mapped[str | None]
    completed_at: Mapped[datetime]


class JobFailure(Base):
    """Something that went wrong with a batch, typed; `needs_review` once the retries are used up."""

    __tablename__ = "job_failures"
    failure_id: Mapped[UUID] = mapped_column(primary_key=True)
    partition_key: Mapped[str] = mapped_column(index=True)
    config_id: Mapped[str | None]
    run_id: Mapped[str | None]
    attempt: Mapped[int]
    failure_kind: Mapped[str]
    detail: Mapped[str]
    needs_review: Mapped[bool]
    occurred_at: Mapped[datetime]


class CircuitBreaker(Base):
    """One engine on one hardware config: failures in a row, since when it is open, and its trials (see assets.benchmark.breaker)."""

    __tablename__ = "circuit_breakers"
    framework: Mapped[str] = mapped_column(primary_key=True)
    hardware_id: Mapped[str] = mapped_column(primary_key=True)
    failures: Mapped[int]
    opened_at: Mapped[datetime | None]
    trials: Mapped[list[str]]
    updated_at: Mapped[datetime]


class CatalogState(Base):
    """One row: the version of everything the API reads. It grows whenever the marts are rebuilt; cache keys carry it."""

    __tablename__ = "catalog_state"
    singleton: Mapped[bool] = mapped_column(primary_key=True, default=True)
    version: Mapped[int]
    updated_at: Mapped[datetime]
    __table_args__ = (CheckConstraint("singleton", name="one_row"),)


def table_of(model: type[Base]) -> Table:
    """The Core table of a mapped class, typed."""
    assert isinstance(model.__table__, Table)  # noqa: S101
    return model.__table__
