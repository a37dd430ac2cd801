"""With TimescaleDB the same migrations make hypertables. Needs a server that preloads it; see `timescale_url`."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from assets.catalog.database import make_engine, transaction
from assets.catalog.migrate import differences, upgrade
from assets.catalog.repository import Catalog
from assets.catalog.timeseries import Edition, rows_in_default
from tests.integration.catalog.builders import measurement, stored_matrix

SERVER = os.environ.get("DYNO_TEST_TIMESCALE_URL", "")

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(
        not SERVER,
        reason="DYNO_TEST_TIMESCALE_URL is not set (postgresql+psycopg2://..., a user that may create databases, on a server that preloads "
        "TimescaleDB); the embedded PostgreSQL has no TimescaleDB, and native partitions are tested in test_time_series.py",
    ),
]


@pytest.fixture
def timescale_url() -> Iterator[str]:
    """A migrated database of its own on the server that DYNO_TEST_TIMESCALE_URL names; dropped afterwards."""
    name = f"dyno_test_{uuid.uuid4().hex[:12]}"
    admin = create_engine(SERVER, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        url = make_url(SERVER).set(database=name).render_as_string(hide_password=False)
        upgrade(url)
        yield url
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


def test_results_and_telemetry_are_hypertables(timescale_url: str) -> None:
    """And nothing else differs from `tables.py`; upgrading again changes nothing; old chunks are compressed where the edition can."""
    upgrade(timescale_url)
    engine = make_engine(timescale_url)
    with transaction(engine) as connection:
        hypertables = connection.execute(
            text(
                "SELECT hypertable_name, column_name FROM timescaledb_information.dimensions WHERE hypertable_schema = 'catalog' ORDER BY 1"
            )
        ).all()
        assert [tuple(row) for row in hypertables] == [("benchmark_results", "measured_at"), ("gpu_telemetry", "sampled_at")]
        assert differences(connection) == []
        policies: int = connection.execute(
            text(
                "SELECT count(*) FROM timescaledb_information.jobs "
                "WHERE proc_name IN ('policy_compression', 'policy_columnstore') AND hypertable_schema = 'catalog'"
            )
        ).scalar_one()
        licence = connection.scalar(text("SHOW timescaledb.license"))
        assert policies == (2 if licence == "timescale" else 0)
    engine.dispose()
    catalog = Catalog(timescale_url)
    assert catalog.edition() == (Edition.TSL if licence == "timescale" else Edition.APACHE)
    catalog.close()


def test_measurements_go_into_chunks_by_time_and_are_in_once(timescale_url: str) -> None:
    """Months far apart need no partition made beforehand, and a measurement given twice is stored once."""
    catalog = Catalog(timescale_url)
    _, batches = stored_matrix(catalog)
    start = datetime(2026, 7, 1, tzinfo=UTC)
    measurements = [measurement(batches[0], index, at=start + timedelta(days=100 * index)) for index in range(3)]
    assert [catalog.add(one, None) for one in (*measurements, *measurements)] == [True] * 3 + [False] * 3
    assert catalog.maintain() == []
    assert [outcome.check.name for outcome in catalog.check_results() if not outcome.passed] == []
    assert len(catalog.measurements_of()) == 3
    catalog.close()
    engine = make_engine(timescale_url)
    with transaction(engine) as connection:
        chunks: int = connection.execute(
            text("SELECT count(*) FROM timescaledb_information.chunks WHERE hypertable_name = 'benchmark_results'")
        ).scalar_one()
        assert chunks == 3
        assert rows_in_default(connection) == {}
    engine.dispose()
