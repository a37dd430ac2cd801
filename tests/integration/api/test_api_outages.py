"""The API while Redis or PostgreSQL is away: slower, stale or honest about it, never wrong and never broken."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient
from redis import Redis
from sqlalchemy import create_engine, event, text

from api.schemas.request import EXAMPLE
from orchestration.local.valkey import EmbeddedValkey
from tests.integration.api.support import Server

pytestmark = pytest.mark.services

Serve = Callable[..., TestClient]
DEADLINE_S = 30


def ask(client: TestClient, request: dict[str, Any] = EXAMPLE) -> dict[str, Any]:
    response = client.post("/api/v1/recommend", json=request)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


def poll(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"


def test_answers_are_kept_for_five_minutes_under_a_key_with_the_version(serve: Serve, database_url: str, redis_url: str) -> None:
    """What is kept is the answer itself, its key carries the version, and it goes away by itself."""
    client = serve(database_url=database_url, redis_url=redis_url)
    first, second = ask(client), ask(client)
    assert (first["metadata"]["cache"], second["metadata"]["cache"]) == ("miss", "hit")
    assert second["recommendations"] == first["recommendations"]
    # the same question in other words
    assert ask(client, EXAMPLE | {"top": 10, "constraints": {}})["metadata"]["cache"] == "hit"
    assert ask(client, EXAMPLE | {"top": 9})["metadata"]["cache"] == "miss"
    with Redis.from_url(redis_url) as redis:
        keys = redis.keys(f"dyno:v1:recommend:{first['metadata']['catalog_version']}:*")
        assert len(keys) == 2
        assert all(290 < redis.ttl(key) <= 300 for key in keys)
        for key in keys:
            redis.set(key, b"{not ours")
    assert ask(client)["recommendations"] == first["recommendations"]


def test_a_restarted_api_finds_what_the_earlier_one_kept(serve: Serve, database_url: str, redis_url: str) -> None:
    """The cache is shared: by processes and over time."""
    ask(serve(database_url=database_url, redis_url=redis_url))
    assert ask(serve(database_url=database_url, redis_url=redis_url))["metadata"]["cache"] == "hit"


def test_with_the_cache_killed_answers_stay_the_same(
    serve: Serve, database_url: str, redis_url: str, valkey: EmbeddedValkey, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis down means slower, not broken: logged once, counted, and back in use once it is back."""
    client = serve(database_url=database_url, redis_url=redis_url, api_cache_retry_after_s=0)
    before = ask(client)
    assert valkey.spawned is not None
    valkey.spawned.process.kill()
    valkey.spawned.process.wait(10)
    with caplog.at_level(logging.INFO, logger="dyno.api.cache"):
        for _ in range(3):
            during = ask(client)
            assert during["metadata"]["cache"] == "miss"
            assert during["recommendations"] == before["recommendations"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "dyno_api_cache_errors_total" in client.get("/metrics").text
    readiness = client.get("/readyz")
    assert readiness.status_code == 200
    assert readiness.json()["parts"]["cache"]["ok"] is False


def test_a_cache_that_just_failed_is_left_alone(serve: Serve, database_url: str) -> None:
    """With a cache that is not there, only the first of many requests pays for finding out."""
    client = serve(database_url=database_url, redis_url="redis://127.0.0.1:9/0", api_cache_retry_after_s=600)
    for _ in range(3):
        assert ask(client)["metadata"]["cache"] == "miss"
    metrics = client.get("/metrics").text
    assert 'dyno_api_cache_errors_total{operation="get"} 1.0' in metrics
    assert 'dyno_api_cache_skips_total{operation="get"} 2.0' in metrics


def test_with_the_database_killed_kept_answers_are_served_as_stale(serve: Serve, database_url: str, redis_url: str, server: Server) -> None:
    """What was answered lately is still answered, marked; what was not is a 503 with a problem document; afterwards all is well again."""
    client = serve(database_url=database_url, redis_url=redis_url)
    before = ask(client)
    server.kill()
    try:
        during = ask(client)
        assert during["metadata"]["cache"] == "stale"
        assert during["recommendations"] == before["recommendations"]
        # never asked before, but its use case's load points are still in memory
        assert ask(client, EXAMPLE | {"top": 3})["metadata"]["cache"] == "stale"
        unanswerable = client.post("/api/v1/recommend", json={"use_case": "rag"})
        assert unanswerable.status_code == 503
        assert unanswerable.headers["content-type"] == "application/problem+json"
        assert unanswerable.headers["retry-after"]
        assert "127.0.0.1" not in unanswerable.text
        assert client.get("/api/v1/models").status_code == 503
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        # another process that never saw the database finds the version in the cache
        assert ask(serve(database_url=database_url, redis_url=redis_url))["metadata"]["cache"] == "stale"
    finally:
        server.start()
    poll(lambda: client.get("/readyz").status_code == 200)
    assert ask(client)["metadata"]["cache"] == "hit"


def test_a_restarted_database_is_not_noticed(serve: Serve, database_url: str, server: Server) -> None:
    """Pooled connections that died are replaced within the request."""
    client = serve(database_url=database_url)
    ask(client)
    server.kill()
    server.start()
    assert ask(client)["metadata"]["cache"] == "miss"
    assert client.get("/api/v1/models").status_code == 200


def test_before_anything_is_built_the_api_says_what_to_run(serve: Serve, empty_postgres_url: str) -> None:
    """An empty database is not a fault: it says which command fills it."""
    client = serve(database_url=empty_postgres_url)
    response = client.post("/api/v1/recommend", json=EXAMPLE)
    assert response.status_code == 503
    assert "./dyno demo" in response.json()["detail"]
    readiness = client.get("/readyz")
    assert readiness.status_code == 503
    assert "load_points" in readiness.json()["parts"]["marts"]["detail"]


def test_models_are_there_before_the_marts(serve: Serve, database_url: str) -> None:
    """The catalog is enough for the list of models; rankings wait for dbt."""
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA marts CASCADE"))
    engine.dispose()
    client = serve(database_url=database_url)
    assert client.get("/api/v1/models").json()["total"] == 3
    assert client.get("/api/v1/models/dyno-82m").json()["use_cases"] is None
    assert client.get("/api/v1/rankings?use_case=chatbot").status_code == 503
    assert client.post("/api/v1/recommend", json=EXAMPLE).status_code == 503


def test_the_same_question_at_once_is_computed_once(serve: Serve, database_url: str, redis_url: str) -> None:
    """When new marts appear, many clients ask the same: the database is read once for all of them, later questions not at all."""
    client = serve(database_url=database_url, redis_url=redis_url)
    engine = client.app.state.services.repository._engine  # type: ignore[attr-defined]  # Starlette's type is ASGIApp
    reads: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *arguments: reads.append(arguments[2]))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(client), range(16)))
    assert all(answer["recommendations"] == answers[0]["recommendations"] for answer in answers)
    ask(client, EXAMPLE | {"top": 7})
    assert sum("load_points" in statement for statement in reads) == 1
