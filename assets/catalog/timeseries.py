"""`benchmark_results` and `gpu_telemetry` as time series: hypertables where TimescaleDB is there, native monthly partitions otherwise.

Native partitions need their month made before a row arrives: a row without one lands in the DEFAULT partition, which no time
bound prunes. Making a month later moves such rows into it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection, text

SCHEMA: Final = "catalog"
# one advisory lock for all changes of partitions; the number is arbitrary, only its uniqueness among our locks matters
PARTITION_LOCK: Final = 7_270_002


class Edition(StrEnum):
    """What keeps the time series: plain PostgreSQL, TimescaleDB's Apache 2 edition, or its TSL edition (which also compresses)."""

    NATIVE = "native"
    APACHE = "timescaledb-apache"
    TSL = "timescaledb-tsl"


@dataclass(frozen=True, slots=True)
class TimeSeries:
    """A table and its time column."""

    table: str
    time_column: str


SERIES: Final = (
    TimeSeries("benchmark_results", "measured_at"),
    TimeSeries("gpu_telemetry", "sampled_at"),
)


@dataclass(frozen=True, slots=True, order=True)
class Month:
    """A calendar month in UTC."""

    year: int
    month: int

    @classmethod
    def of(cls, instant: datetime) -> Month:
        """The month of an aware instant."""
        utc = instant.astimezone(UTC)
        return cls(utc.year, utc.month)

    @property
    def start(self) -> datetime:
        return datetime(self.year, self.month, 1, tzinfo=UTC)

    @property
    def next(self) -> Month:
        return Month(self.year + 1, 1) if self.month == 12 else Month(self.year, self.month + 1)

    def __str__(self) -> str:
        return f"{self.year:04d}_{self.month:02d}"


def months_ahead(start: datetime, count: int) -> tuple[Month, ...]:
    """The month of `start` and the `count` months after it."""
    months = [Month.of(start)]
    for _ in range(count):
        months.append(months[-1].next)
    return tuple(months)


def timescaledb_usable(connection: Connection) -> bool:
    """Whether this server has TimescaleDB's files and preloads it: only then can a database create the extension."""
    available = connection.scalar(text("SELECT true FROM pg_available_extensions WHERE name = 'timescaledb'"))
    # the preloaded loader defines this setting in every database of the server
    preloaded = connection.scalar(text("SELECT current_setting('timescaledb.disable_load', true) IS NOT NULL"))
    return bool(available and preloaded)


def edition(connection: Connection) -> Edition:
    """What keeps the time series of this database, as the migrations made them."""
    native = connection.scalar(
        text(
            "SELECT c.relkind = 'p' FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = :s AND c.relname = :t"
        ),
        {"s": SCHEMA, "t": SERIES[0].table},
    )
    if native:
        return Edition.NATIVE
    licence = connection.scalar(text("SELECT current_setting('timescaledb.license', true)"))
    return Edition.TSL if licence == "timescale" else Edition.APACHE


def partition_name(series: TimeSeries, month: Month) -> str:
    """The table that holds one month of a series."""
    return f"{series.table}_p{month}"


def ensure_months(connection: Connection, months: Iterable[Month]) -> list[str]:
    """Make the monthly partitions that are missing, moving rows out of DEFAULT; returns the names made. No-op on hypertables.

    Call it in a transaction of its own: attaching a partition waits for readers of DEFAULT.
    """
    wanted = [(series, month, partition_name(series, month)) for series in SERIES for month in sorted(set(months))]
    if _missing(connection, [name for _, _, name in wanted]) == set() or edition(connection) is not Edition.NATIVE:
        return []
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": PARTITION_LOCK})
    missing = _missing(connection, [name for _, _, name in wanted])
    for series, month, name in wanted:
        if name in missing:
            _attach_month(connection, series, month, name)
    return sorted(missing)


def _missing(connection: Connection, names: list[str]) -> set[str]:
    found = connection.scalars(
        text(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = :schema AND c.relispartition AND c.relname = ANY(:names)"
        ),
        {"schema": SCHEMA, "names": names},
    )
    return set(names) - set(found)


def _attach_month(connection: Connection, series: TimeSeries, month: Month, name: str) -> None:
    # identifiers come from the constants above and from integers, never from outside
    parent, default, part = f"{SCHEMA}.{series.table}", f"{SCHEMA}.{series.table}_default", f"{SCHEMA}.{name}"
    low, high = month.start.isoformat(), month.next.start.isoformat()
    bounds = f"{series.time_column} >= '{low}' AND {series.time_column} < '{high}'"
    connection.execute(text(f"CREATE TABLE {part} (LIKE {parent} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"))
    connection.execute(text(f"LOCK TABLE {default} IN ACCESS EXCLUSIVE MODE"))
    connection.execute(
        text(f"WITH moved AS (DELETE FROM {default} WHERE {bounds} RETURNING *) INSERT INTO {part} SELECT * FROM moved")  # noqa: S608
    )
    connection.execute(text(f"ALTER TABLE {parent} ATTACH PARTITION {part} FOR VALUES FROM ('{low}') TO ('{high}')"))


def rows_in_default(connection: Connection) -> dict[str, int]:
    """How many rows of each series missed their month. Empty on hypertables."""
    if edition(connection) is not Edition.NATIVE:
        return {}
    return {
        series.table: connection.execute(text(f"SELECT count(*) FROM {SCHEMA}.{series.table}_default")).scalar_one()  # noqa: S608
        for series in SERIES
    }
