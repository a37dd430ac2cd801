"""Insert, or update where something differs: how reference data, models and matrices are written."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, or_
from sqlalchemy.dialects.postgresql import insert


def upsert(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    keep: Collection[str] = (),
    touch: Collection[str] = (),
) -> int:
    """Write `rows`, all with the same columns, by primary key; returns how many were inserted or changed.

    Columns in `keep` are set by the insert only; those in `touch` are updated too, but do not count as a difference.
    """
    if not rows:
        return 0
    key = [column.name for column in table.primary_key]
    updated = [name for name in rows[0] if name not in key and name not in keep]
    statement = insert(table)
    statement = statement.on_conflict_do_update(
        index_elements=key,
        set_={name: statement.excluded[name] for name in updated},
        where=or_(*(table.c[name].is_distinct_from(statement.excluded[name]) for name in updated if name not in touch)),
    )
    return len(connection.execute(statement.returning(table.c[key[0]]), list(rows)).all())
