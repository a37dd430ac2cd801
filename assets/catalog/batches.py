"""Batches out of the stored matrix, as the typed records that went in."""

from __future__ import annotations

from sqlalchemy import Connection, RowMapping, select

from assets.benchmark.store import UnknownBatchError
from assets.catalog import tables
from assets.catalog.errors import CatalogError
from assets.matrix.dimensions import load_workloads
from assets.matrix.spec import Batch, Configuration, Deployment, LoadPoint, ModelVersion, Workload


def batch(connection: Connection, partition_key: str) -> Batch:
    """The batch with its feasible configurations, in the order of `assets.matrix.batches`: short requests first, then rising load.

    Raises UnknownBatchError.
    """
    config, version = tables.BenchmarkConfig, tables.ModelVersion
    rows = (
        connection.execute(
            select(config.__table__, version.model_id, version.quantization, version.revision)
            .join(version, version.model_version_id == config.model_version_id)
            .where(config.partition_key == partition_key, config.feasible)
        )
        .mappings()
        .all()
    )
    if not rows:
        raise UnknownBatchError(partition_key)
    deployment = _deployment(rows[0])
    configurations = [_configuration(deployment, row) for row in rows]
    return Batch(partition_key, deployment, tuple(sorted(configurations, key=_measuring_order)))


def _measuring_order(configuration: Configuration) -> tuple[int, str, str, float]:
    point = configuration.load_point
    tokens = point.workload.input_tokens + point.workload.output_tokens
    return tokens, point.workload.name, point.mode, point.concurrency or point.request_rate_per_s or 0.0


def _deployment(row: RowMapping) -> Deployment:
    deployment = Deployment(
        model_version=ModelVersion(row["model_id"], row["quantization"], row["revision"]),
        framework=row["framework"],
        framework_version=row["framework_version"],
        hardware_id=row["hardware_id"],
        tensor_parallel=row["tensor_parallel"],
        flags=row["flags"],
    )
    _same(deployment.deployment_id, row["deployment_id"])
    return deployment


def _configuration(deployment: Deployment, row: RowMapping) -> Configuration:
    point = LoadPoint(_workload(row), row["load_mode"], row["concurrency"], row["request_rate_per_s"])
    configuration = Configuration(deployment, point)
    _same(configuration.config_id, row["config_id"])
    return configuration


def _workload(row: RowMapping) -> Workload:
    """Identity is name and lengths; the description comes from today's data where the workload still is the same."""
    stored = Workload(row["workload"], row["input_tokens"], row["output_tokens"])
    known = load_workloads().get(stored.name)
    return known if known is not None and known.spec == stored.spec else stored


def _same(computed: str, stored: str) -> None:
    """A row that does not hash to its id was changed by hand, or lost something on the way in: measuring it would be a lie."""
    if computed != stored:
        raise CatalogError(f"catalog.benchmark_configs: the row with id {stored} hashes to {computed}: it was changed; restore it")
