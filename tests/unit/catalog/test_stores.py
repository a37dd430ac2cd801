"""The catalog is the store that each stage asks for: mypy fails here when a stage and the catalog drift apart."""

from __future__ import annotations

from assets.benchmark.store import ResultStore
from assets.catalog.repository import Catalog
from assets.matrix.store import MatrixStore
from assets.models.store import ModelStore

UNUSED_URL = "postgresql+psycopg2://nobody@127.0.0.1:1/none"


def test_the_catalog_is_every_stages_store() -> None:
    """mypy checks the signatures; this run checks that the methods are there."""
    catalog = Catalog(UNUSED_URL)  # connects to nothing until it is asked
    models: ModelStore = catalog
    matrix: MatrixStore = catalog
    results: ResultStore = catalog
    for protocol, store in ((ModelStore, models), (MatrixStore, matrix), (ResultStore, results)):
        methods = [name for name, member in vars(protocol).items() if callable(member) and not name.startswith("_")]
        assert methods
        assert [name for name in methods if not callable(getattr(store, name, None))] == []
    catalog.close()
