"""What the assets are given: the catalog, an executor, the models' configuration. Nothing connects before a run needs it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from dagster import ResourceDefinition, resource

from assets.benchmark.executors.subprocess import SubprocessExecutor
from assets.catalog.repository import Catalog
from orchestration.settings import Settings


class DatabaseNotSetError(Exception):
    """DYNO_DATABASE_URL is not set."""


def database_url() -> str:
    """The catalog's URL, from the environment that `./dyno` or the cluster gives. Raises DatabaseNotSetError."""
    url = os.environ.get("DYNO_DATABASE_URL")
    if not url:
        raise DatabaseNotSetError("DYNO_DATABASE_URL is not set: start Dagster through ./dyno up, or set it to your PostgreSQL")
    return url


@resource(description="The catalog's tables, as the stages see them.")
def catalog_resource() -> Iterator[Catalog]:
    catalog = Catalog(database_url())
    try:
        yield catalog
    finally:
        catalog.close()


def build_resources(settings: Settings) -> dict[str, object]:
    """Resources by the names that the assets ask for."""
    return {
        "catalog": catalog_resource,
        "benchmark_executor": ResourceDefinition.hardcoded_resource(SubprocessExecutor(settings.state_dir / "checkpoints")),
        "models_config": ResourceDefinition.hardcoded_resource(settings.models_config()),
    }
