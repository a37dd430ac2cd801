"""A catalog of its own for each test: empty, unless the folder's conftest puts something into the database of `catalog_url`."""

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
    """The catalog of `catalog_url`."""
    opened = Catalog(catalog_url)
    yield opened
    opened.close()
