"""Native monthly partitions: every row in its month, also across ends of months and years."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import text

from assets.catalog.database import make_engine, transaction
from assets.catalog.repository import Catalog
from assets.catalog.timeseries import Month, ensure_months, months_ahead, rows_in_default
from tests.integration.catalog.builders import measurement, stored_matrix

pytestmark = pytest.mark.services


def partitions(url: str) -> dict[str, int]:
    """Rows by partition of benchmark_results, empty ones left out."""
    engine = make_engine(url)
    with transaction(engine) as connection:
        rows = connection.execute(text("SELECT tableoid::regclass::text AS part, count(*) AS n FROM catalog.benchmark_results GROUP BY 1"))
        found = {row.part.removeprefix("catalog."): row.n for row in rows}
    engine.dispose()
    return found


def test_measurements_around_the_end_of_a_year_land_in_their_months(catalog: Catalog, catalog_url: str) -> None:
    """The last microsecond of December and the first of January are in different partitions, in UTC whatever the zone."""
    _, batches = stored_matrix(catalog)
    new_year = datetime(2031, 1, 1, tzinfo=UTC)
    tokyo = timezone(timedelta(hours=9))
    catalog.add(measurement(batches[0], 0, at=new_year - timedelta(microseconds=1)), None)
    catalog.add(measurement(batches[0], 1, at=new_year), None)
    catalog.add(measurement(batches[0], 2, at=datetime(2031, 1, 1, 8, 59, tzinfo=tokyo)), None)
    assert partitions(catalog_url) == {"benchmark_results_p2030_12": 2, "benchmark_results_p2031_01": 1}


def test_telemetry_that_runs_over_the_end_of_a_month_is_split(catalog: Catalog, catalog_url: str) -> None:
    """A load point measured over midnight has samples in two months, none in the default partition."""
    _, batches = stored_matrix(catalog)
    catalog.add(measurement(batches[0], at=datetime(2030, 2, 28, 23, 59, 59, tzinfo=UTC)), None)
    engine = make_engine(catalog_url)
    with transaction(engine) as connection:
        counts = connection.execute(
            text("SELECT tableoid::regclass::text, count(*) FROM catalog.gpu_telemetry GROUP BY 1 ORDER BY 1")
        ).all()
        assert [tuple(row) for row in counts] == [("catalog.gpu_telemetry_p2030_02", 2), ("catalog.gpu_telemetry_p2030_03", 4)]
        assert rows_in_default(connection) == {"benchmark_results": 0, "gpu_telemetry": 0}
    engine.dispose()


def test_rows_in_the_default_partition_move_when_their_month_is_made(catalog: Catalog, catalog_url: str) -> None:
    """Somebody's direct insert must not keep us from making that month, nor be lost."""
    _, batches = stored_matrix(catalog)
    catalog.add(measurement(batches[0]), None)
    engine = make_engine(catalog_url)
    with transaction(engine) as connection:
        connection.execute(
            text(
                "CREATE TEMP TABLE copy ON COMMIT DROP AS SELECT * FROM catalog.benchmark_results; "
                "UPDATE copy SET measured_at = '2035-05-05Z', measurement_id = gen_random_uuid(), repeat = 7; "
                "INSERT INTO catalog.benchmark_results SELECT * FROM copy"
            )
        )
        assert rows_in_default(connection)["benchmark_results"] == 1
    with transaction(engine) as connection:
        assert ensure_months(connection, [Month(2035, 5)]) == ["benchmark_results_p2035_05", "gpu_telemetry_p2035_05"]
        assert ensure_months(connection, [Month(2035, 5)]) == []
        assert rows_in_default(connection)["benchmark_results"] == 0
    engine.dispose()
    assert partitions(catalog_url) == {"benchmark_results_p2026_07": 1, "benchmark_results_p2035_05": 1}


def test_a_query_for_one_month_reads_one_partition(catalog_url: str) -> None:
    """The point of partitions: time bounds prune. The default partition is read too, since it could hold anything."""
    engine = make_engine(catalog_url)
    with transaction(engine) as connection:
        now = datetime.now(UTC)
        month = Month.of(now)
        plan = "\n".join(
            connection.scalars(
                text("EXPLAIN SELECT * FROM catalog.benchmark_results WHERE measured_at >= :low AND measured_at < :high"),
                {"low": month.start, "high": month.next.start},
            )
        )
        assert f"benchmark_results_p{month}" in plan
        assert f"benchmark_results_p{month.next}" not in plan
    engine.dispose()


def test_maintenance_makes_the_coming_months(catalog: Catalog, catalog_url: str) -> None:
    """A long-running installation never runs out of months."""
    coming = months_ahead(datetime.now(UTC), 3)
    engine = make_engine(catalog_url)
    with transaction(engine) as connection:
        for series in ("benchmark_results", "gpu_telemetry"):
            connection.execute(text(f"DROP TABLE catalog.{series}_p{coming[-1]}"))
    engine.dispose()
    assert catalog.maintain() == [f"benchmark_results_p{coming[-1]}", f"gpu_telemetry_p{coming[-1]}"]
    assert catalog.maintain() == []
