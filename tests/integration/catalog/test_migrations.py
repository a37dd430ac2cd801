"""The migrations: they agree with tables.py, may run at any time and by anybody, and refuse clearly."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import CheckConstraint, inspect, text

from assets.catalog.database import make_engine, transaction
from assets.catalog.errors import CatalogUnavailableError, MigrationError
from assets.catalog.migrate import current_revision, differences, head_revision, upgrade
from assets.catalog.tables import SCHEMA, Base

pytestmark = pytest.mark.services


def test_upgrade_from_empty_twice_changes_nothing_the_second_time(empty_postgres_url: str) -> None:
    """Every start of Dyno upgrades: the second time must keep what is there."""
    upgrade(empty_postgres_url)
    engine = make_engine(empty_postgres_url)
    with transaction(engine) as connection:
        connection.execute(text("UPDATE catalog.catalog_state SET version = 41"))
    upgrade(empty_postgres_url)
    with transaction(engine) as connection:
        assert connection.scalar(text("SELECT version FROM catalog.catalog_state")) == 41
        assert current_revision(connection) == head_revision()
    engine.dispose()


def test_upgrades_at_once_do_not_collide(empty_postgres_url: str) -> None:
    """Several processes start at once on an empty database: all end well, on one schema."""
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(upgrade, [empty_postgres_url] * 6))
    engine = make_engine(empty_postgres_url)
    with transaction(engine) as connection:
        assert connection.scalar(text("SELECT count(*) FROM catalog.catalog_state")) == 1
    engine.dispose()


def test_migrations_and_tables_agree(catalog_url: str) -> None:
    """Whoever changes tables.py must write the migration, and the other way round. Alembic does not compare checks: we do."""
    engine = make_engine(catalog_url)
    with transaction(engine) as connection:
        assert differences(connection) == []
        inspector = inspect(connection)
        for table in Base.metadata.sorted_tables:
            wanted = {str(c.name) for c in table.constraints if isinstance(c, CheckConstraint)}
            found = {str(c["name"]) for c in inspector.get_check_constraints(table.name, schema=SCHEMA)}
            assert found == wanted, table.name
    engine.dispose()


def test_a_difference_is_found(catalog_url: str) -> None:
    """The comparison itself works: a column too many is reported."""
    engine = make_engine(catalog_url)
    with transaction(engine) as connection:
        connection.execute(text("ALTER TABLE catalog.models ADD COLUMN surplus text"))
        assert [difference[0] for difference in differences(connection)] == ["remove_column"]
    engine.dispose()


def test_a_database_of_a_newer_dyno_is_refused(catalog_url: str) -> None:
    """An old Dyno must not touch tables that it does not know."""
    engine = make_engine(catalog_url)
    with transaction(engine) as connection:
        connection.execute(text("UPDATE catalog.alembic_version SET version_num = '9999'"))
    with pytest.raises(MigrationError, match="newer Dyno"):
        upgrade(catalog_url)
    engine.dispose()


def test_a_foreign_schema_is_left_as_it_was(empty_postgres_url: str) -> None:
    """Half a migration is worse than none: when it fails, nothing of it stays."""
    engine = make_engine(empty_postgres_url)
    with transaction(engine) as connection:
        connection.execute(text("CREATE SCHEMA catalog"))
        connection.execute(text("CREATE TABLE catalog.provenance (theirs text)"))
    with pytest.raises(MigrationError, match="already exists; nothing was changed"):
        upgrade(empty_postgres_url)
    with transaction(engine) as connection:
        assert inspect(connection).get_table_names(schema="catalog") == ["provenance"]
    engine.dispose()


def test_a_server_out_of_reach_is_named_without_its_password() -> None:
    """Error messages end in logs and bug reports."""
    with pytest.raises(CatalogUnavailableError, match=r"127\.0\.0\.1:1/dyno does not answer") as caught:
        upgrade("postgresql+psycopg2://dyno:s3cret@127.0.0.1:1/dyno")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "not a url", "sqlite:///file.db", "postgresql://u:s3cret@host/db"])
def test_a_url_of_something_else_is_refused(url: str) -> None:
    """What is wrong with a URL is said without repeating it: it may hold a password."""
    with pytest.raises(CatalogUnavailableError, match="must look like") as caught:
        upgrade(url)
    assert "s3cret" not in str(caught.value)
