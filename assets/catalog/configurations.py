"""The stored matrix: every configuration with its verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, delete, exists, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert

from assets.catalog import tables
from assets.catalog.errors import UnknownHardwareError, UnknownModelError
from assets.catalog.tables import table_of
from assets.catalog.upsert import upsert
from assets.matrix.dimensions import load_hardware
from assets.matrix.generate import Cell, Matrix
from assets.matrix.spec import Batch, Deployment, ModelVersion
from assets.matrix.store import MatrixCounts


def save(connection: Connection, matrices: Sequence[Matrix], batches: Sequence[Batch]) -> None:
    """Store every cell, with the hardware and the model versions that it names. The same matrix again changes nothing.

    A stored configuration whose verdict has changed gets the new one. Configurations of a deployment that was replaced (another
    engine version, flags or weights on the same hardware) go, unless something was measured on them.
    Raises UnknownModelError and UnknownHardwareError.
    """
    partition_keys = {configuration.config_id: batch.partition_key for batch in batches for configuration in batch.configurations}
    deployments = {cell.configuration.deployment.deployment_id: cell.configuration.deployment for m in matrices for cell in m.cells}
    _require_models(connection, {matrix.model_id for matrix in matrices})
    _add_hardware(connection, {hardware_id for matrix in matrices for hardware_id in matrix.hardware_ids})
    _add_versions(connection, {version for matrix in matrices for version in matrix.model_versions})
    _remove_replaced(connection, deployments.values())
    now = datetime.now(UTC)
    rows = [_row(cell, partition_keys.get(cell.configuration.config_id), now) for matrix in matrices for cell in matrix.cells]
    upsert(connection, table_of(tables.BenchmarkConfig), rows, keep=("created_at",))


def counts(connection: Connection, model_id: str) -> MatrixCounts:
    """How many configurations of a model are stored, feasible and rejected, counted by the database."""
    config, version = tables.BenchmarkConfig, tables.ModelVersion
    of_model = select(version.model_version_id).where(version.model_id == model_id)
    rows = connection.execute(
        select(config.rejection_code, func.count())
        .where(config.model_version_id.in_(of_model))
        .group_by(config.rejection_code)
        .order_by(func.count().desc(), config.rejection_code)
    ).all()
    generated = connection.execute(select(func.count()).select_from(config).where(config.model_version_id.in_(of_model))).scalar_one()
    feasible = sum(count for code, count in rows if code is None)
    rejected = {code: count for code, count in rows if code is not None}
    return MatrixCounts(generated, feasible, rejected)


def _require_models(connection: Connection, model_ids: Iterable[str]) -> None:
    wanted = set(model_ids)
    known = set(connection.scalars(select(tables.Model.model_id).where(tables.Model.model_id.in_(wanted))))
    if wanted - known:
        raise UnknownModelError(f"not registered in the catalog: {', '.join(sorted(wanted - known))}; materialize `model` first")


def _add_hardware(connection: Connection, hardware_ids: set[str]) -> None:
    """What `reference_data` has not loaded yet is taken from the matrix's own data, so that the two may run in any order."""
    hardware = tables.HardwareConfig
    missing = hardware_ids - set(connection.scalars(select(hardware.hardware_id)))
    unknown = missing - load_hardware().keys()
    if unknown:
        raise UnknownHardwareError(f"no facts about {', '.join(sorted(unknown))}: add them to assets/matrix/data/hardware.yaml")
    if missing:
        rows = [asdict(load_hardware()[hardware_id]) for hardware_id in sorted(missing)]
        connection.execute(insert(hardware).on_conflict_do_nothing(), rows)


def _add_versions(connection: Connection, versions: Iterable[ModelVersion]) -> None:
    rows = [
        {**version.spec, "model_version_id": version.model_version_id, "weights_bytes": None, "files": {}, "created_at": datetime.now(UTC)}
        for version in versions
    ]
    if rows:
        connection.execute(insert(tables.ModelVersion).on_conflict_do_nothing(), rows)


def _remove_replaced(connection: Connection, deployments: Iterable[Deployment]) -> None:
    config, version, checkpoint, result = tables.BenchmarkConfig, tables.ModelVersion, tables.JobCheckpoint, tables.BenchmarkResult
    current = list(deployments)
    places = {(d.model_version.model_id, d.model_version.quantization, d.hardware_id, d.framework) for d in current}
    connection.execute(
        delete(config).where(
            config.model_version_id == version.model_version_id,
            tuple_(version.model_id, version.quantization, config.hardware_id, config.framework).in_(places),
            config.deployment_id.not_in([deployment.deployment_id for deployment in current]),
            ~exists().where(checkpoint.config_id == config.config_id),
            ~exists().where(result.config_id == config.config_id),
        )
    )


def _row(cell: Cell, partition_key: str | None, now: datetime) -> dict[str, Any]:
    configuration, deployment, point = cell.configuration, cell.configuration.deployment, cell.configuration.load_point
    return {
        "config_id": configuration.config_id,
        "deployment_id": deployment.deployment_id,
        "model_version_id": deployment.model_version.model_version_id,
        "hardware_id": deployment.hardware_id,
        "framework": deployment.framework,
        "framework_version": deployment.framework_version,
        "flags": dict(deployment.flags),
        "tensor_parallel": deployment.tensor_parallel,
        "partition_key": partition_key,
        "workload": point.workload.name,
        "input_tokens": point.workload.input_tokens,
        "output_tokens": point.workload.output_tokens,
        "load_mode": point.mode,
        "concurrency": point.concurrency,
        "request_rate_per_s": point.request_rate_per_s,
        "feasible": cell.feasible,
        "rejection_code": cell.rejection.code if cell.rejection else None,
        "rejection_detail": cell.rejection.detail if cell.rejection else None,
        "vram_required_bytes": cell.vram.required_bytes,
        "vram_available_bytes": cell.vram.available_bytes,
        "vram_quick_estimate_bytes": cell.vram_quick_estimate_bytes,
        "vram_parts": cell.vram.parts,
        "created_at": now,
    }
