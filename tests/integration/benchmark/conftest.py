"""A real model, a small batch of it, and a catalog that knows both."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from assets.catalog.migrate import upgrade
from assets.catalog.repository import Catalog
from assets.matrix.batches import batches_of
from assets.matrix.dimensions import preset
from assets.matrix.generate import Matrix, generate
from assets.matrix.spec import Batch, Workload
from assets.models.artifacts import LocalArtifact, resolve_local_artifact
from assets.models.local.build import ensure_local_model, local_facts
from tests.integration.benchmark.s3 import S3Server, running
from tests.integration.benchmark.support import MODEL_ID, QUANTIZATION

CONCURRENCIES = (1, 2, 4)
WORKLOAD = Workload("tiny", 16, 24)


@pytest.fixture(scope="session")
def built_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `models` of a state folder with one small model in it."""
    folder = tmp_path_factory.mktemp("built")
    ensure_local_model(MODEL_ID, QUANTIZATION, folder)
    return folder / "models"


@pytest.fixture
def artifact(state_dir: Path, built_models: Path) -> LocalArtifact:
    """The model in this test's state folder. Its files are links: replace them, never write into them."""
    shutil.copytree(built_models, state_dir / "models", copy_function=os.link)
    return resolve_local_artifact(MODEL_ID, QUANTIZATION, state_dir)


@pytest.fixture(scope="session")
def matrix() -> Matrix:
    """Three load points of the model on the CPU."""
    local = preset("local").only(quantizations=[QUANTIZATION])
    return generate(local_facts(MODEL_ID), replace(local, workloads=(WORKLOAD,), concurrencies=CONCURRENCIES))


@pytest.fixture(scope="session")
def batch(matrix: Matrix) -> Batch:
    """All load points of the matrix: one engine launch."""
    [only] = batches_of([matrix])
    return only


@pytest.fixture
def catalog_url(empty_postgres_url: str, matrix: Matrix, batch: Batch) -> str:
    """URL of a database that holds the batch and no measurement."""
    upgrade(empty_postgres_url)
    catalog = Catalog(empty_postgres_url)
    catalog.register_model(local_facts(MODEL_ID))
    catalog.save_matrix([matrix], [batch])
    catalog.close()
    return empty_postgres_url


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The session's S3."""
    with running(tmp_path_factory.mktemp("s3") / "moto.log") as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The session's S3, and an environment that leads there."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server
