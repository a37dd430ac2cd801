"""Real services for the tests: one embedded PostgreSQL and one Valkey per session, started when a test asks for them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from hypothesis import HealthCheck, settings
from psycopg2 import sql

from orchestration.local.postgres import EmbeddedPostgres, PostgresEndpoint
from orchestration.local.valkey import EmbeddedValkey

# A slow machine is no wrong answer: no test asserts a time, Hypothesis's own neither.
settings.register_profile("dyno", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dyno")


@pytest.fixture(scope="session")
def service_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the session's PostgreSQL and Valkey."""
    return tmp_path_factory.mktemp("services")


@pytest.fixture(scope="session")
def postgres_server(service_dir: Path) -> Iterator[PostgresEndpoint]:
    """The session's PostgreSQL server. Not durable: a test about durability starts its own."""
    server = EmbeddedPostgres(service_dir / "postgres", service_dir / "postgres.log", durable=False)
    endpoint = server.start(os.environ)
    yield endpoint
    server.stop()


def create_database(server: PostgresEndpoint, name: str) -> str:
    """Make an empty database, drop it first if it is there, and give its SQLAlchemy URL."""
    connection = psycopg2.connect(host=server.host, port=server.port, user=server.user, password=server.password, dbname="postgres")
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
            cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    finally:
        connection.close()
    return server.url(name)


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresEndpoint) -> str:
    """SQLAlchemy URL (postgresql+psycopg2) of a database that was empty at the session's start and that all its tests share."""
    return create_database(postgres_server, "dyno_session")


@pytest.fixture
def empty_postgres_url(postgres_server: PostgresEndpoint) -> Iterator[str]:
    """SQLAlchemy URL of an empty database for this test alone."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield create_database(postgres_server, name)
    connection = psycopg2.connect(
        host=postgres_server.host,
        port=postgres_server.port,
        user=postgres_server.user,
        password=postgres_server.password,
        dbname="postgres",
    )
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
    connection.close()


@pytest.fixture(scope="session")
def redis_url(service_dir: Path) -> Iterator[str]:
    """URL of the session's Valkey."""
    server = EmbeddedValkey(service_dir / "valkey", service_dir / "valkey.log")
    yield server.start(os.environ)
    server.stop()


@pytest.fixture
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty state folder, which DYNO_STATE_DIR names for this test."""
    folder = tmp_path / "state"
    folder.mkdir()
    monkeypatch.setenv("DYNO_STATE_DIR", str(folder))
    return folder
