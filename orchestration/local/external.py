"""Servers that are not ours: are they there? Passwords never appear in a message."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import psycopg2
import redis
from psycopg2 import sql

CONNECT_TIMEOUT_S = 10


class ExternalServiceError(Exception):
    """A server that a setting names cannot be used; the message says which, why, and what to check."""


def masked(url: str) -> str:
    """The URL with its password replaced by ***."""
    parts = urlsplit(url)
    query = [(name, "***" if name == "password" else value) for name, value in parse_qsl(parts.query, keep_blank_values=True)]
    parts = parts._replace(query=urlencode(query, safe="*/"))
    credentials, separator, place = parts.netloc.rpartition("@")
    if not separator:
        return urlunsplit(parts)
    user, colon, _ = credentials.partition(":")
    return urlunsplit(parts._replace(netloc=f"{user}{':***' if colon else ''}@{place}"))


def with_database(url: str, database: str) -> str:
    """The URL of another database on the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


def check_postgres(url: str, variable: str, *, create: bool = False) -> None:
    """Connect once.

    Args:
        url: `postgresql+psycopg2://...`
        variable: the setting to name in an error.
        create: make the database when it is missing.

    Raises:
        ExternalServiceError: no connection.
    """
    libpq_url = url.replace("postgresql+psycopg2://", "postgresql://", 1)
    try:
        try:
            psycopg2.connect(libpq_url, connect_timeout=CONNECT_TIMEOUT_S).close()
        except psycopg2.OperationalError as error:
            if not (create and "does not exist" in str(error)):
                raise
            _create_database(libpq_url)
    except psycopg2.Error as error:
        reason = _without_secrets(str(error).strip(), url)
        raise ExternalServiceError(
            f"the PostgreSQL server of {variable} ({masked(url)}) cannot be used: {reason}. "
            f"Check that it runs and that the address, user and password are right, or unset {variable} to use an embedded one"
        ) from None


def _create_database(libpq_url: str) -> None:
    name = urlsplit(libpq_url).path.lstrip("/")
    connection = psycopg2.connect(with_database(libpq_url, "postgres"), connect_timeout=CONNECT_TIMEOUT_S)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    finally:
        connection.close()


def check_redis(url: str, variable: str) -> None:
    """Ping once.

    Raises:
        ExternalServiceError: no answer.
    """
    client = redis.Redis.from_url(url, socket_connect_timeout=CONNECT_TIMEOUT_S, socket_timeout=CONNECT_TIMEOUT_S)
    try:
        client.ping()
    except (redis.RedisError, OSError) as error:
        reason = _without_secrets(str(error), url)
        raise ExternalServiceError(
            f"the Redis server of {variable} ({masked(url)}) cannot be used: {reason}. "
            f"Check that it runs and that the address and password are right, or unset {variable} to use an embedded one"
        ) from None
    finally:
        client.close()


def _without_secrets(text: str, url: str) -> str:
    parts = urlsplit(url)
    passwords = {parts.password, unquote(parts.password or ""), *(v for name, v in parse_qsl(parts.query) if name == "password")}
    for password in sorted((word for word in passwords if word), key=len, reverse=True):
        text = text.replace(password, "***")
    return text
