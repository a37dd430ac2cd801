"""A measurement is in once and whole, or not at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import uuid4

import pytest
from sqlalchemy import text

from assets.catalog import results
from assets.catalog.database import make_engine, transaction
from assets.catalog.errors import CatalogUnavailableError, InvalidMeasurementError, UnknownConfigurationError
from assets.catalog.repository import Catalog
from tests.integration.catalog.builders import measurement, stored_matrix

pytestmark = pytest.mark.services
TABLES = ("benchmark_results", "gpu_telemetry", "job_checkpoints", "provenance")


def rows(url: str) -> dict[str, int]:
    """How many rows each table of measurements has."""
    engine = make_engine(url)
    with transaction(engine) as connection:
        found: dict[str, int] = {table: connection.execute(text(f"SELECT count(*) FROM catalog.{table}")).scalar_one() for table in TABLES}
    engine.dispose()
    return found


def test_eight_writers_of_the_same_measurement_store_it_once(catalog: Catalog, catalog_url: str) -> None:
    """The asset, a retry and a hand-started run may all ingest the same checkpoint file."""
    _, batches = stored_matrix(catalog)
    same = measurement(batches[0])

    def write(_: int) -> bool:
        own = Catalog(catalog_url)
        try:
            return own.add(same, "run")
        finally:
            own.close()

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(write, range(8))) == [False] * 7 + [True]
    assert rows(catalog_url) == {"benchmark_results": 1, "gpu_telemetry": 6, "job_checkpoints": 1, "provenance": 1}


def test_eight_measurements_of_the_same_load_point_store_one(catalog: Catalog, catalog_url: str) -> None:
    """Two workers that measured the same load point by accident: the first counts."""
    _, batches = stored_matrix(catalog)
    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(lambda m: catalog.add(m, None), [measurement(batches[0]) for _ in range(8)]))
    assert sum(stored) == 1
    assert rows(catalog_url)["benchmark_results"] == 1


def test_a_connection_killed_before_the_commit_leaves_nothing(catalog: Catalog, catalog_url: str) -> None:
    """A crash between the checkpoint and the result must not make a load point look measured."""
    _, batches = stored_matrix(catalog)
    one = measurement(batches[0])
    engine = make_engine(catalog_url)

    def add_and_lose_the_connection() -> None:
        with transaction(engine) as connection:
            assert results.add(connection, one, None, tool_version="0")
            backend: int = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with transaction(engine) as other:
                other.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": backend})
            connection.execute(text("SELECT 1"))

    with pytest.raises(CatalogUnavailableError):
        add_and_lose_the_connection()
    engine.dispose()
    assert set(rows(catalog_url).values()) == {0}
    assert catalog.done([one.config_id], "demo", 0) == set()
    assert catalog.add(one, None)


def test_the_pool_survives_a_restart_of_the_server(catalog: Catalog, catalog_url: str) -> None:
    """All connections of the pool are cut: the next call works."""
    assert catalog.catalog_version() == 1
    engine = make_engine(catalog_url)
    with transaction(engine) as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'dyno-catalog'"
            )
        )
    engine.dispose()
    assert catalog.catalog_version() == 1


def test_an_error_in_the_last_step_takes_everything_back(catalog: Catalog, catalog_url: str) -> None:
    """Result and checkpoint are in one transaction with the telemetry: a sample that cannot be stored stores nothing."""
    _, batches = stored_matrix(catalog)
    one = measurement(batches[0])
    impossible = replace(one.telemetry[0], memory_bytes=2**70)
    with pytest.raises(InvalidMeasurementError, match="out of range"):
        catalog.add(replace(one, telemetry=(*one.telemetry, impossible)), None)
    assert set(rows(catalog_url).values()) == {0}


def test_an_unknown_configuration_is_refused(catalog: Catalog, catalog_url: str) -> None:
    """A result without its configuration could never be interpreted."""
    _, batches = stored_matrix(catalog)
    with pytest.raises(UnknownConfigurationError, match="materialize test_matrix"):
        catalog.add(replace(measurement(batches[0]), config_id="f" * 32), None)
    assert set(rows(catalog_url).values()) == {0}


def test_a_measurement_id_of_another_load_point_is_refused(catalog: Catalog) -> None:
    """Ids are unique: the second owner is a mistake that must be seen, not swallowed as a repetition."""
    _, batches = stored_matrix(catalog)
    identity = uuid4()
    assert catalog.add(measurement(batches[0], 0, identity=identity), None)
    with pytest.raises(InvalidMeasurementError, match="another load point"):
        catalog.add(measurement(batches[0], 1, identity=identity), None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measurement_id": "one"}, "not a UUID"),
        ({"kind": "guessed"}, "'guessed' is none of"),
        ({"requests_completed": 19}, "21 requests were sent"),
        ({"measured_at": "2026-07-20T12:00:00"}, "no time zone"),
        ({"measured_at": "yesterday"}, "not an ISO 8601 instant"),
        ({"requests_per_s": float("nan")}, "requests_per_s is not a finite number"),
        ({"engine": {"args": [1.0, float("inf")]}}, r"engine\.args\.1 is not a finite number"),
        ({"repeat": -1}, "repeat -1 is negative"),
    ],
)
def test_a_measurement_that_contradicts_itself_is_refused(catalog: Catalog, change: dict[str, object], message: str) -> None:
    """The message names the measurement and what is wrong with it; nothing is stored."""
    _, batches = stored_matrix(catalog)
    one = replace(measurement(batches[0]), **change)  # type: ignore[arg-type]  # the changes are wrong on purpose
    with pytest.raises(InvalidMeasurementError, match=message):
        catalog.add(one, None)
    assert catalog.done([one.config_id], "demo", 0) == set()
