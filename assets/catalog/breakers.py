"""The state of the circuit breakers, shared by all runs: a row for each engine on each hardware config, locked while it changes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.postgresql import insert

from assets.benchmark.breaker import Breaker
from assets.catalog import tables


def admit(connection: Connection, framework: str, hardware_id: str) -> timedelta | None:
    """Let one batch start: None; or how long to wait before asking again."""
    waits: list[timedelta] = []

    def change(breaker: Breaker, now: datetime) -> Breaker:
        after = breaker.admit(now)
        if after is None:
            waits.append(breaker.wait(now))
        return after or breaker

    _change(connection, framework, hardware_id, change)
    return waits[0] if waits else None


def note_outcome(connection: Connection, framework: str, hardware_id: str, *, succeeded: bool) -> None:
    """A batch has measured something, or failed in a way that counts."""
    _change(connection, framework, hardware_id, lambda breaker, now: breaker.succeeded() if succeeded else breaker.failed(now))


def _change(connection: Connection, framework: str, hardware_id: str, change: Callable[[Breaker, datetime], Breaker]) -> None:
    table = tables.CircuitBreaker
    key = (table.framework == framework) & (table.hardware_id == hardware_id)
    fresh = {"framework": framework, "hardware_id": hardware_id, "failures": 0, "opened_at": None, "trials": []}
    connection.execute(insert(table).values(fresh | {"updated_at": func.clock_timestamp()}).on_conflict_do_nothing())
    row = connection.execute(
        select(table.failures, table.opened_at, table.trials, func.clock_timestamp().label("now")).where(key).with_for_update()
    ).one()
    before = Breaker(row.failures, row.opened_at, tuple(datetime.fromisoformat(began) for began in row.trials))
    after = change(before, row.now)
    if after != before:
        connection.execute(
            update(table)
            .where(key)
            .values(
                failures=after.failures,
                opened_at=after.opened_at,
                trials=[began.isoformat() for began in after.trials],
                updated_at=func.clock_timestamp(),
            )
        )
