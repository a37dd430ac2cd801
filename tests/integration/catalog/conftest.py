"""An empty, migrated catalog for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from assets.catalog.migrate import upgrade
from assets.catalog.repository import Catalog


@pytest.fixture
def catalog_url(empty_postgres_url: str) -> str:
    """URL of a migrated database without data."""
    upgrade(empty_postgres_url)
    return empty_postgres_url


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    """A catalog without data."""
    opened = Catalog(catalog_url)
    yield opened
    opened.close()
