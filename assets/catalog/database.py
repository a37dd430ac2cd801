"""Connections to the catalog's database, and its errors in words that never show the password."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, OperationalError

from assets.catalog.errors import CatalogUnavailableError


def parse_url(database_url: str) -> URL:
    """The URL, checked. Raises CatalogUnavailableError when it is not one of PostgreSQL through psycopg2."""
    try:
        url = make_url(database_url)
    except ArgumentError:
        url = None
    if url is None or url.get_backend_name() != "postgresql" or url.get_driver_name() != "psycopg2":
        # the text is not repeated: it may contain a password
        raise CatalogUnavailableError(
            "the database URL must look like postgresql+psycopg2://user:password@host:port/dbname (DYNO_DATABASE_URL)"
        )
    return url


def make_engine(database_url: str, *, pool_size: int = 4) -> Engine:
    """An engine with a small pool that survives a restart of the server. Connects to nothing yet."""
    return create_engine(
        parse_url(database_url),
        pool_size=pool_size,
        max_overflow=4,
        pool_pre_ping=True,
        connect_args={"application_name": "dyno-catalog", "connect_timeout": 10, "options": "-c timezone=UTC"},
    )


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """A connection in a transaction: committed at the end, rolled back on an error.

    Raises CatalogUnavailableError when the server cannot be reached, refuses us or goes away meanwhile.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except OperationalError as error:
        raise unavailable(engine, error) from error


def unavailable(engine: Engine, error: OperationalError) -> CatalogUnavailableError:
    """The server's refusal as one sentence."""
    reason = str(error.orig).strip().splitlines()[0] if error.orig else type(error).__name__
    return CatalogUnavailableError(
        f"the catalog's database {engine.url.render_as_string(hide_password=True)} does not answer: {reason}; "
        "check that PostgreSQL runs (`./dyno status`) and that DYNO_DATABASE_URL is right"
    )
