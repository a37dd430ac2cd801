"""Bring a database to this version's tables.

`upgrade` may be called at every start and by several processes at once: an advisory lock lets one of them work, the others find
nothing left to do.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, OperationalError

from assets.catalog.database import make_engine, transaction
from assets.catalog.errors import MigrationError
from assets.catalog.tables import SCHEMA, Base
from assets.catalog.timeseries import SERIES, ensure_months, months_ahead

# one advisory lock for all migrations; the number is arbitrary, only its uniqueness among our locks matters
MIGRATION_LOCK: Final = 7_270_001
MONTHS_AHEAD: Final = 3


def upgrade(database_url: str) -> None:
    """Create or upgrade the schema `catalog`, all in one transaction, and the partitions of the coming months.

    Raises CatalogUnavailableError when the database cannot be reached, MigrationError when it cannot be brought to this version.
    """
    engine = make_engine(database_url)
    try:
        with transaction(engine) as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            _refuse_newer(connection)
            _migrate(connection)
        with transaction(engine) as connection:
            ensure_months(connection, months_ahead(datetime.now(UTC), MONTHS_AHEAD))
    finally:
        engine.dispose()


def current_revision(connection: Connection) -> str | None:
    """The migration that the database is at; None before the first."""
    return MigrationContext.configure(connection, opts={"version_table_schema": SCHEMA}).get_current_revision()


def head_revision() -> str:
    """The migration that this version of Dyno needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None, "there is always a first migration"  # noqa: S101
    return head


def differences(connection: Connection) -> list[Any]:
    """What Alembic would still change to make the migrated database equal to `tables.py`: empty when the two agree."""
    options = {"version_table_schema": SCHEMA, "include_schemas": True, "include_name": include_name, "include_object": include_object}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata))


def include_name(name: str | None, kind: str, _parents: Any) -> bool:
    """Compare our schema only: dbt's and TimescaleDB's are not ours to migrate."""
    return kind != "schema" or name == SCHEMA


def include_object(_item: object, name: str | None, kind: str, reflected: bool, compare_to: object) -> bool:
    """Leave out the partitions of time series, which are made as time goes on."""
    is_partition = kind == "table" and reflected and compare_to is None and name is not None and name.startswith(_PARTITION_PREFIXES)
    return not is_partition


_PARTITION_PREFIXES = tuple(f"{series.table}_{suffix}" for series in SERIES for suffix in ("p", "default"))


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def _refuse_newer(connection: Connection) -> None:
    current = current_revision(connection)
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if current is not None and current not in known:
        raise MigrationError(
            f"the database is at migration {current}, which this version of Dyno does not know: it was used by a newer Dyno; "
            "update Dyno, or give it another database (DYNO_DATABASE_URL)"
        )


def _migrate(connection: Connection) -> None:
    try:
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
        command.upgrade(_config(connection), "head")
    except OperationalError:
        raise
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise MigrationError(
            f"the catalog's tables could not be created or changed: {reason}; nothing was changed. The user needs the right to create "
            f"schemas in the database, and the schema {SCHEMA!r} must be new or made by Dyno"
        ) from error
