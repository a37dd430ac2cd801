"""The benchmark stage in Dagster: one asset per hardware config, one partition per batch, one worker per partition.

No `from __future__ import annotations` here: Dagster reads the annotations.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from dagster import (
    AllPartitionMapping,
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetDep,
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    Backoff,
    Config,
    DynamicPartitionsDefinition,
    Failure,
    Jitter,
    MaterializeResult,
    MetadataValue,
    PathMetadataValue,
    PipesTempFileContextInjector,
    PipesTempFileMessageReader,
    ResourceParam,
    RetryPolicy,
    TableColumn,
    TableMetadataValue,
    TableRecord,
    TableSchema,
    asset,
    asset_check,
    open_pipes_session,
)
from pydantic import Field

from assets.benchmark.batch import BatchError, BatchRun
from assets.benchmark.executors.protocol import Executor
from assets.benchmark.job import PROTOCOLS, Measurement
from assets.benchmark.storage.location import parse_location
from assets.benchmark.store import BatchFailure, ResultStore
from assets.matrix.dimensions import load_hardware
from assets.matrix.spec import HardwareConfig
from assets.models.artifacts import resolve_local_artifact
from assets.models.errors import ModelsError

MAX_RETRIES = 2
RETRY_DELAY_S = 10.0
DEFAULT_PROTOCOL = os.environ.get("DYNO_PROTOCOL") or "standard"


class BenchmarkRunConfig(Config):
    """How a batch is measured."""

    protocol: str = Field(DEFAULT_PROTOCOL, description=f"How many requests a load point gets: {', '.join(PROTOCOLS)}.")
    remeasure: bool = Field(False, description="Measure load points again that are measured already; both measurements are kept.")


def suffix_of(hardware_id: str) -> str:
    """A hardware id as part of a Dagster name: `h100-80gb-x4` becomes `h100_80gb_x4`."""
    return hardware_id.replace("-", "_").replace(".", "_")


def partitions_of(hardware_id: str) -> DynamicPartitionsDefinition:
    """The batches of one hardware config."""
    return DynamicPartitionsDefinition(name=f"batches_{suffix_of(hardware_id)}")


def pool_of(hardware: HardwareConfig) -> str:
    """The pool that limits how many batches of a GPU type run at once: `cpu`, `gpu_h100`, `gpu_a100_80gb`."""
    return "cpu" if hardware.gpu_count == 0 else f"gpu_{suffix_of(hardware.gpu_type.lower())}"


def build_benchmark_asset(hardware: HardwareConfig) -> AssetsDefinition:
    """The asset of one hardware config."""

    @asset(
        name=f"benchmark_{suffix_of(hardware.hardware_id)}",
        group_name="benchmark",
        description=f"Load points measured on {hardware.hardware_id}. A partition is a batch: one engine launch and its load points.",
        partitions_def=partitions_of(hardware.hardware_id),
        deps=[AssetDep("test_matrix", partition_mapping=AllPartitionMapping())],
        pool=pool_of(hardware),
        kinds={"python"},
        retry_policy=RetryPolicy(max_retries=MAX_RETRIES, delay=RETRY_DELAY_S, backoff=Backoff.EXPONENTIAL, jitter=Jitter.PLUS_MINUS),
        metadata={"hardware_id": hardware.hardware_id, "gpu_type": hardware.gpu_type, "gpu_count": hardware.gpu_count},
    )
    def benchmark(
        context: AssetExecutionContext,
        config: BenchmarkRunConfig,
        catalog: ResourceParam[ResultStore],
        benchmark_executor: ResourceParam[Executor],
    ) -> MaterializeResult:  # type: ignore[type-arg]  # Dagster cannot read a parametrized one
        run = _start(context, config, catalog)
        try:
            remaining = run.remaining()
            context.log.info("%d load points to measure; %d of an earlier attempt are kept", len(remaining), len(run.added))
            if remaining:
                _measure(context, run, remaining, hardware, benchmark_executor)
        except (BatchError, ModelsError) as error:
            raise _recorded(context, run, error) from error
        return MaterializeResult(metadata=_metadata(run))

    return benchmark


def build_benchmark_check(hardware: HardwareConfig) -> AssetChecksDefinition:
    """The check of one hardware config: no batch waits for a person."""

    @asset_check(
        asset=AssetKey(f"benchmark_{suffix_of(hardware.hardware_id)}"),
        name="no_batch_needs_review",
        description="No batch has failed for good (retries used up, or a retry could not help) without being measured since.",
    )
    def check(context: AssetCheckExecutionContext, catalog: ResourceParam[ResultStore]) -> AssetCheckResult:
        waiting = catalog.batches_needing_review(hardware.hardware_id)
        return AssetCheckResult(
            passed=not waiting,
            severity=AssetCheckSeverity.WARN,
            description="; ".join(f"{key}: {detail}" for key, detail in waiting.items()) or None,
            metadata={"batches": len(waiting)},
        )

    return check


def _start(context: AssetExecutionContext, config: BenchmarkRunConfig, catalog: ResultStore) -> BatchRun:
    state_dir = os.environ.get("DYNO_STATE_DIR")
    if not state_dir:
        raise Failure("DYNO_STATE_DIR is not set: it names the folder of models and checkpoints", allow_retries=False)
    checkpoints = os.environ.get("DYNO_CHECKPOINTS") or None
    if checkpoints is not None:
        try:
            parse_location(checkpoints)
        except ValueError as error:
            raise Failure(f"DYNO_CHECKPOINTS: {error}", allow_retries=False) from error
    if config.protocol not in PROTOCOLS:
        raise Failure(f"protocol {config.protocol!r} is unknown; one of {', '.join(PROTOCOLS)}", allow_retries=False)
    batch = catalog.batch(context.partition_key)
    ids = [configuration.config_id for configuration in batch.configurations]
    repeat = catalog.next_repeat(ids, config.protocol) if config.remeasure else 0
    environments = os.environ.get("DYNO_ENGINE_ENVIRONMENTS")
    run = BatchRun(
        catalog,
        batch,
        config.protocol,
        repeat,
        Path(state_dir),
        context.run.run_id,
        context.log.warning,
        checkpoints=checkpoints,
        engine_environments=Path(environments) if environments else None,
    )
    context.log.info("finished load points are kept in %s", run.location)
    return run


def _measure(context: AssetExecutionContext, run: BatchRun, remaining: set[str], hardware: HardwareConfig, executor: Executor) -> None:
    missing = executor.unavailable(hardware)
    if missing is not None:
        raise Failure(missing, allow_retries=False)
    version = run.batch.deployment.model_version
    artifact = resolve_local_artifact(version.model_id, version.quantization, run.state_dir)
    with open_pipes_session(context, PipesTempFileContextInjector(), PipesTempFileMessageReader()) as session:
        run.measure(remaining, artifact, executor, session.get_bootstrap_env_vars())


def _recorded(context: AssetExecutionContext, run: BatchRun, error: BatchError | ModelsError) -> Failure:
    """Put the failure into the catalog; returns it in Dagster's form, with or without another try."""
    retryable = error.retryable if isinstance(error, BatchError) else False
    kind = error.kind if isinstance(error, BatchError) else "artifact"
    needs_review = not retryable or context.retry_number >= MAX_RETRIES
    load_points = error.load_points if isinstance(error, BatchError) else {}
    failures: Sequence[tuple[str | None, str, str]] = [
        (None, kind, str(error)),
        *((config_id, point_kind, detail) for config_id, (point_kind, detail) in load_points.items()),
    ]
    for config_id, failure_kind, detail in failures:
        run.store.record_failure(
            BatchFailure(
                partition_key=run.batch.partition_key,
                config_id=config_id,
                run_id=run.run_id,
                attempt=context.retry_number + 1,
                failure_kind=failure_kind,
                detail=detail,
                needs_review=needs_review,
            )
        )
    return Failure(
        f"{kind}: {error}",
        metadata={"load_points_added": len(run.added), "attempt": context.retry_number + 1, "needs_review": needs_review},
        allow_retries=retryable,
    )


def _metadata(run: BatchRun) -> dict[str, int | str | PathMetadataValue | TableMetadataValue]:
    points = {configuration.config_id: configuration.load_point for configuration in run.batch.configurations}
    measured = sorted(run.added, key=lambda m: (points[m.config_id].workload.name, points[m.config_id].concurrency or 0))
    columns = {
        "workload": "string",
        "concurrency": "int",
        "ttft_p50_ms": "float",
        "ttft_p90_ms": "float",
        "tpot_p50_ms": "float",
        "output_tokens_per_s": "float",
        "failed": "int",
    }
    metadata: dict[str, int | str | PathMetadataValue | TableMetadataValue] = {
        "load_points_added": len(measured),
        "load_points": len(points),
        "protocol": run.protocol,
        "repeat": run.repeat,
        "checkpoints": MetadataValue.path(run.location),
    }
    if measured:
        metadata["measured"] = MetadataValue.table(
            [TableRecord(_row(points[m.config_id].workload.name, points[m.config_id].concurrency, m)) for m in measured],
            schema=TableSchema([TableColumn(name, kind) for name, kind in columns.items()]),
        )
    return metadata


def _row(workload: str, concurrency: int | None, measurement: Measurement) -> dict[str, str | int | float | None]:
    return {
        "workload": workload,
        "concurrency": concurrency,
        "ttft_p50_ms": _rounded(measurement.ttft_ms.p50),
        "ttft_p90_ms": _rounded(measurement.ttft_ms.p90),
        "tpot_p50_ms": _rounded(measurement.tpot_ms.p50),
        "output_tokens_per_s": _rounded(measurement.output_tokens_per_s),
        "failed": measurement.requests_failed,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


HARDWARE = tuple(load_hardware().values())
BENCHMARK_ASSETS = tuple(build_benchmark_asset(hardware) for hardware in HARDWARE)
BENCHMARK_CHECKS = tuple(build_benchmark_check(hardware) for hardware in HARDWARE)
