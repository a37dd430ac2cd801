"""Models and model versions in the catalog."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import distinct_on, insert

from assets.catalog import tables
from assets.catalog.errors import UnknownModelError
from assets.catalog.tables import table_of
from assets.catalog.upsert import upsert
from assets.matrix.spec import ModelVersion
from assets.models.facts import ModelFacts
from assets.models.store import Weights

_FACT_NAMES = frozenset(field.name for field in fields(ModelFacts))


def register(connection: Connection, facts: ModelFacts) -> bool:
    """Store the facts; True when the model is new or its facts changed. `registered_at` stays that of the first time."""
    now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    row = {
        "model_id": facts.model_id,
        "name": facts.name,
        "hub_id": facts.hub_id,
        "licence": facts.licence,
        "architecture": facts.architecture,
        "params": facts.params,
        "active_params": facts.active_params,
        "max_context_tokens": facts.max_context_tokens,
        # through JSON, so that what is compared is what comes back: tuples are lists there
        "facts": json.loads(json.dumps(asdict(facts), allow_nan=False)),
        "source": facts.source,
        "registered_at": now,
        "updated_at": now,
    }
    return upsert(connection, table_of(tables.Model), [row], keep=("registered_at",), touch=("updated_at",)) > 0


def register_weights(connection: Connection, weights: Weights) -> None:
    """Store a version whose weights are in place; the newest registration of a quantization is the one that counts.

    Raises UnknownModelError.
    """
    model(connection, weights.model_id)
    version = ModelVersion(weights.model_id, weights.quantization, weights.revision)
    now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    changing = {"weights_bytes": weights.size_bytes, "files": weights.files, "last_registered_at": now}
    connection.execute(
        insert(tables.ModelVersion)
        .values(**version.spec, model_version_id=version.model_version_id, created_at=now, **changing)
        .on_conflict_do_update(index_elements=["model_version_id"], set_=changing)
    )


def hub_id_of(connection: Connection, model_id: str) -> str | None:
    """The hub id of a registered model; None where there is none."""
    return connection.scalar(select(tables.Model.hub_id).where(tables.Model.model_id == model_id))


def model(connection: Connection, model_id: str) -> ModelFacts:
    """The facts of a registered model. Raises UnknownModelError."""
    stored = connection.scalar(select(tables.Model.facts).where(tables.Model.model_id == model_id))
    if stored is None:
        known = ", ".join(model_ids(connection)) or "none yet"
        raise UnknownModelError(
            f"model {model_id!r} is not registered in the catalog (registered: {known}); materialize `model` for it first"
        )
    return _facts(stored)


def model_ids(connection: Connection) -> list[str]:
    """The registered models, in alphabetical order."""
    return list(connection.scalars(select(tables.Model.model_id).order_by(tables.Model.model_id)))


def versions(connection: Connection, model_id: str) -> Sequence[ModelVersion]:
    """The versions whose weights are in place: of each quantization the one that was registered last."""
    version = tables.ModelVersion
    rows = connection.execute(
        select(version.model_id, version.quantization, version.revision)
        .where(version.model_id == model_id, version.last_registered_at.is_not(None))
        .order_by(version.quantization, version.last_registered_at.desc())
        .ext(distinct_on(version.quantization))
    )
    return [ModelVersion(row.model_id, row.quantization, row.revision) for row in rows]


def _facts(stored: Mapping[str, Any]) -> ModelFacts:
    # facts written by a newer version of Dyno may have more fields than we know
    known = {name: value for name, value in stored.items() if name in _FACT_NAMES}
    return ModelFacts(**known | {"formats": tuple(known.get("formats", ()))})
