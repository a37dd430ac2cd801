"""Each check of the stored measurements finds what it is for, in rows that somebody changed by hand or a future importer got wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import text

from assets.catalog.checks import CHECKS
from assets.catalog.database import make_engine, transaction
from assets.catalog.repository import Catalog
from tests.integration.catalog.builders import measurement, stored_matrix

pytestmark = pytest.mark.services

COLUMNS = """
SELECT string_agg(quote_ident(column_name), ', ') FROM information_schema.columns
WHERE table_schema = 'catalog' AND table_name = 'benchmark_results' AND column_name <> 'measurement_id'
"""
# What breaks a rule, by the check that must notice.
DAMAGE = {
    "percentiles_ordered": "UPDATE catalog.benchmark_results SET itl_p90_ms = itl_p95_ms + 1",
    "requests_add_up": """UPDATE catalog.benchmark_results SET failures = '{"timeout": 2}'""",
    "simulated_not_rankable": "UPDATE catalog.provenance SET file_sha256 = NULL",
    "measured_once": "INSERT INTO catalog.benchmark_results (measurement_id, {columns}) SELECT gen_random_uuid(), {columns} "
    "FROM catalog.benchmark_results",
    "in_flight_within_concurrency": "UPDATE catalog.benchmark_results SET concurrency_mean = 1000",
}


def outcomes(catalog: Catalog) -> dict[str, int]:
    """Violations by check."""
    return {outcome.check.name: outcome.violations for outcome in catalog.check_results()}


def test_every_check_is_tried_here() -> None:
    """A check that nobody has seen fail checks nothing."""
    assert {check.name for check in CHECKS} == set(DAMAGE)


def test_what_the_worker_stores_passes(catalog: Catalog) -> None:
    """Also the hardest case: a closed loop whose streams are never idle."""
    _, batches = stored_matrix(catalog)
    catalog.add(measurement(batches[0], 0), None)
    full = batches[0].configurations[1].load_point.concurrency
    assert full is not None
    catalog.add(replace(measurement(batches[0], 1), concurrency_mean=float(full)), None)
    assert set(outcomes(catalog).values()) == {0}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_by_the_check_that_is_for_it(catalog: Catalog, catalog_url: str, name: str) -> None:
    """And by no other; the example names the measurement."""
    _, batches = stored_matrix(catalog)
    one = measurement(batches[0])
    catalog.add(one, None)
    engine = make_engine(catalog_url)
    with transaction(engine) as connection:
        columns: str = connection.execute(text(COLUMNS)).scalar_one()
        connection.execute(text(DAMAGE[name].format(columns=columns) if "{columns}" in DAMAGE[name] else DAMAGE[name]))
    engine.dispose()
    assert {found for found, violations in outcomes(catalog).items() if violations} == {name}
    example = next(outcome.examples[0] for outcome in catalog.check_results() if outcome.check.name == name)
    assert one.measurement_id in example or one.config_id in example
