"""A PostgreSQL server of these tests' own (some of them kill it), with one database that dbt has built and a copy of it per test."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from api.settings import ApiSettings
from orchestration.local.postgres import EmbeddedPostgres, PostgresEndpoint
from orchestration.local.valkey import EmbeddedValkey
from tests.integration.api.support import Server, build_catalog

BUILT = "built"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("api-postgres")
    postgres = EmbeddedPostgres(folder / "postgres", folder / "postgres.log", durable=False)
    server = Server(postgres, postgres.start(os.environ))
    try:
        execute(server.endpoint, f"CREATE DATABASE {BUILT}")
        build_catalog(server.endpoint.url(BUILT), folder)
        yield server
    finally:
        postgres.stop()


def execute(endpoint: PostgresEndpoint, statement: str) -> None:
    connection = psycopg2.connect(host=endpoint.host, port=endpoint.port, user=endpoint.user, password=endpoint.password, dbname="postgres")
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()


@pytest.fixture
def database_url(server: Server) -> Iterator[str]:
    """A catalog of this test's own, marts included."""
    name = f"api_{uuid.uuid4().hex[:12]}"
    execute(server.endpoint, f"CREATE DATABASE {name} TEMPLATE {BUILT}")
    yield server.endpoint.url(name)
    execute(server.endpoint, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A Valkey that this test may kill; `redis_url` starts it."""
    server = EmbeddedValkey(tmp_path / "valkey", tmp_path / "valkey.log")
    yield server
    server.stop()


@pytest.fixture
def redis_url(valkey: EmbeddedValkey) -> str:
    """An empty Valkey: the databases of these tests are copies, so that answers kept for one would be right for the next."""
    return valkey.start(os.environ)


@pytest.fixture
def serve() -> Iterator[Callable[..., TestClient]]:
    """Start the application with given settings; a fault of the application is a response with status 500, as for a real client."""
    clients: list[TestClient] = []

    def start(**settings: object) -> TestClient:
        client = TestClient(create_app(ApiSettings.model_validate(settings)), raise_server_exceptions=False)
        clients.append(client)
        return client.__enter__()

    yield start
    for client in clients:
        client.__exit__(None, None, None)
