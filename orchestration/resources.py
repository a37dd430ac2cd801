"""What the assets are given: the catalog, an executor, the models' configuration. Nothing connects before a run needs it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from dagster import ResourceDefinition, resource

from assets.benchmark.executors.subprocess import SubprocessExecutor
from assets.catalog.repository import Catalog
from assets.models.config import ModelsConfig
from orchestration.settings import Settings

GIB = 2**30


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


def models_config(settings: Settings) -> ModelsConfig:
    """What the models stage needs of the settings."""
    return ModelsConfig(
        state_dir=settings.state_dir,
        hub_endpoint=settings.hub_endpoint,
        allowed_licences=settings.allowed_licences,
        local_download_limit_bytes=int(settings.local_download_limit_gib * GIB),
        hub_token=settings.hub_token.get_secret_value() if settings.hub_token else None,
    )


def build_resources(settings: Settings) -> dict[str, object]:
    """Resources by the names that the assets ask for."""
    return {
        "catalog": catalog_resource,
        "benchmark_executor": ResourceDefinition.hardcoded_resource(SubprocessExecutor()),
        "models_config": ResourceDefinition.hardcoded_resource(models_config(settings)),
    }
