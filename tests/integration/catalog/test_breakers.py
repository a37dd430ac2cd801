"""Circuit breakers are shared by all runs, also by those that ask at the same instant."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from assets.benchmark.breaker import FAILURES, RECOVERY, TRIALS
from assets.catalog.database import make_engine, transaction
from assets.catalog.repository import Catalog

pytestmark = pytest.mark.services


def test_failures_of_different_runs_add_up_and_of_other_hardware_do_not(catalog: Catalog, catalog_url: str) -> None:
    def fail(_: int) -> None:
        own = Catalog(catalog_url)
        try:
            own.note_outcome("vllm", "h100-80gb-x4", succeeded=False)
        finally:
            own.close()

    with ThreadPoolExecutor(FAILURES) as pool:
        list(pool.map(fail, range(FAILURES)))
    wait = catalog.admit("vllm", "h100-80gb-x4")
    assert wait is not None
    assert wait <= RECOVERY
    assert catalog.admit("vllm", "h100-80gb-x8") is None
    assert catalog.admit("tgi", "h100-80gb-x4") is None
    catalog.note_outcome("vllm", "h100-80gb-x4", succeeded=True)
    assert catalog.admit("vllm", "h100-80gb-x4") is None


def test_of_ten_that_ask_at_once_three_may_try(catalog: Catalog, catalog_url: str) -> None:
    for _ in range(FAILURES):
        catalog.note_outcome("vllm", "l4-x1", succeeded=False)
    engine = make_engine(catalog_url)
    with transaction(engine) as connection:
        connection.execute(text("UPDATE catalog.circuit_breakers SET opened_at = opened_at - interval '1 minute'"))
    engine.dispose()
    with ThreadPoolExecutor(10) as pool:
        waits = list(pool.map(lambda _: catalog.admit("vllm", "l4-x1"), range(10)))
    assert sum(wait is None for wait in waits) == TRIALS
