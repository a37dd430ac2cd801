"""The API on a real PostgreSQL with marts that dbt built."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, insert, text

from api.schemas.request import EXAMPLE, RecommendRequest
from api.schemas.response import RecommendResponse
from assets.catalog.tables import BenchmarkResult
from tests.integration.api import support

pytestmark = pytest.mark.services

Serve = Callable[..., TestClient]


@pytest.fixture
def client(serve: Serve, database_url: str) -> TestClient:
    return serve(database_url=database_url)


def recommend(client: TestClient, request: dict[str, Any]) -> dict[str, Any]:
    response = client.post("/api/v1/recommend", json=request)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    RecommendResponse.model_validate(document)
    return document


def test_the_example_of_the_documentation_names_model_and_hardware(client: TestClient) -> None:
    """chatbot, 30 requests/s, 512 tokens, latency p90 300 ms: the one deployment that does it, with numbers that follow from the data."""
    answer = recommend(client, EXAMPLE)
    (best,) = answer["recommendations"]
    assert best["label"] == "Qwen2.5-7B (4xH100)"
    assert (best["replicas"], best["gpus"], best["operating_point"]["concurrency"]) == (1, 4, 8)
    assert best["cost"]["per_hour_usd"] == {"on_demand": 27.52, "spot": 9.1}
    # 27.52 USD/h over 30 requests/s x 32 tokens
    assert best["cost"]["per_million_output_tokens_usd"]["on_demand"] == pytest.approx(27.52 / (30 * 32 * 3600) * 1e6)
    assert best["binding_bound"] == "latency_p90_ms"
    assert best["sla_headroom"] == [{"bound": "latency_p90_ms", "limit": 300.0, "value": 290.0, "share": pytest.approx(10 / 300)}]
    assert best["vram"]["required_bytes"] == sum(best["vram"]["parts"].values())
    (evidence,) = best["evidence"]
    assert (evidence["kind"], evidence["requests"], evidence["source"]) == ("measured", 200, "file:results/requests.jsonl.gz")
    assert evidence["interval"]["e2e_p90_ms"] == [pytest.approx(275.5), pytest.approx(304.5)]
    metadata = answer["metadata"]
    assert metadata["candidates_considered"] == metadata["feasible"] + sum(metadata["filtered_out"].values()) == 4
    assert metadata["filtered_out"] == {"latency_p90_ms_above_limit": 2, "other_workload": 1}
    assert (metadata["workload"], metadata["input_tokens"], metadata["output_tokens"]) == ("chat", 512, 32)
    assert (metadata["length_distance"], metadata["warning"]) == (0.0, None)
    assert metadata["cache"] == "miss"


def test_only_measurements_of_the_closest_lengths_are_compared(client: TestClient) -> None:
    """A short workload is compared when short requests are asked for; lengths that nothing comes close to are said to be so."""
    short = recommend(client, {"use_case": "chatbot", "load": {"input_tokens": 100}})
    assert [entry["label"] for entry in short["recommendations"]] == ["dyno-82m (cpu)"]
    assert (short["metadata"]["workload"], short["metadata"]["warning"]) == ("chat_short", None)
    long = recommend(client, {"use_case": "chatbot", "load": {"input_tokens": 4096}})
    assert len(long["recommendations"]) == 3
    assert "prompts of 512 tokens were measured, 4096 were asked for" in long["metadata"]["warning"]


def test_when_nothing_is_feasible_the_answer_says_what_would_have_to_give(client: TestClient) -> None:
    """The smallest change is the fastest measured latency, and asking for that gives what was promised."""
    answer = recommend(client, EXAMPLE | {"sla": {"latency_p90_ms": 100}})
    assert answer["recommendations"] == []
    (relaxation,) = answer["relaxations"]
    assert relaxation["changes"] == [{"bound": "sla.latency_p90_ms", "asked": 100.0, "required": 220.0}]
    again = recommend(client, EXAMPLE | {"sla": {"latency_p90_ms": 220}})
    assert again["recommendations"][0]["label"] == relaxation["recommendation"]["label"]


def test_constraints_weights_and_method_reach_the_ranking(client: TestClient) -> None:
    """Only allowed hardware comes back, weights decide the order, and the front has only what is on it."""
    cpu = recommend(client, {"use_case": "chatbot", "constraints": {"gpus": ["CPU"], "max_gpus": 0}})
    assert [entry["label"] for entry in cpu["recommendations"]] == ["dyno-82m (cpu)"]
    cheapest = recommend(client, {"use_case": "chatbot", "weights": {"cost": 1}})["recommendations"]
    prices = [entry["cost"]["per_million_output_tokens_usd"]["on_demand"] for entry in cheapest]
    assert prices == sorted(prices)
    assert len(prices) == 3
    front = recommend(client, {"use_case": "chatbot", "method": "pareto", "top": 2})["recommendations"]
    assert len(front) == 2
    assert all(entry["pareto"] for entry in front)


@pytest.mark.parametrize(
    ("request_body", "location", "words"),
    [
        ({"use_case": "chatbot", "sla": {"ttft_p90_ms": -5}}, "body.sla.ttft_p90_ms", "0.001 or more"),
        ({"use_case": "chatbot", "weights": {"accuracy": 0, "cost": 0}}, "body.weights", "above 0"),
        ({"use_case": "chatbot", "weights": {"cost": -1}}, "body.weights.cost", "0 or more"),
        ({"use_case": "chatbotz"}, "body.use_case", "chatbot, rag"),
        ({"use_case": "chatbot", "sla": {"ttft_p90": 5}}, "body.sla.ttft_p90", "ttft_p90_ms"),
        ({"use_case": "chatbot", "load": {"rps": "30"}}, "body.load.rps", "without quotes"),
        ({"use_case": "chatbot", "constraints": {"gpus": []}}, "body.constraints.gpus", "leave the list out"),
        ({"use_case": "chatbot", "kinds": ["simulated"]}, "body.kinds.0", "'measured' or 'published'"),
        ({}, "body.use_case", "add it"),
    ],
)
def test_a_malformed_request_is_told_where_and_what_to_do(client: TestClient, request_body: Any, location: str, words: str) -> None:
    """Every refusal is a problem document that names the place and the remedy."""
    response = client.post("/api/v1/recommend", json=request_body)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    (item,) = response.json()["errors"]
    assert item["location"] == location
    assert words in item["fix"]


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(), st.text(max_size=8), st.sampled_from([-1, 0, 1, 5e-324, 1e308])
)
sections = {"load", "sla", "constraints", "weights"}


def near_requests() -> st.SearchStrategy[dict[str, Any]]:
    """Requests with right and wrong values at right and wrong places."""

    def part(schema: type[Any]) -> st.SearchStrategy[Any]:
        names = st.sampled_from([*schema.model_fields, "unknown"])
        return st.one_of(
            st.dictionaries(names, st.one_of(scalars, st.lists(scalars, max_size=2), st.floats(0.001, 1e9)), max_size=4), scalars
        )

    fields: dict[str, st.SearchStrategy[Any]] = {
        name: part(next(a for a in (info.annotation, *getattr(info.annotation, "__args__", ())) if hasattr(a, "model_fields")))
        if name in sections
        else st.one_of(scalars, st.lists(scalars, max_size=2))
        for name, info in RecommendRequest.model_fields.items()
    }
    fields["use_case"] = st.one_of(st.sampled_from(["chatbot", "rag"]), scalars)
    return st.fixed_dictionaries({}, optional=fields)


def test_no_request_makes_the_api_fail(client: TestClient) -> None:
    """Whatever a body holds, the answer is an answer or a problem with the request, never a fault of the API."""

    @settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
    @given(st.one_of(near_requests(), st.binary(max_size=40)))
    def check(body: dict[str, Any] | bytes) -> None:
        if isinstance(body, bytes):
            response = client.post("/api/v1/recommend", content=body, headers={"content-type": "application/json"})
        else:
            # Python's own writer, because it writes NaN and Infinity, which a strict one refuses
            response = client.post("/api/v1/recommend", content=json.dumps(body), headers={"content-type": "application/json"})
        assert response.status_code in {200, 400, 422}, response.text
        if response.status_code == 200:
            numbers = [r["score"] for r in response.json()["recommendations"]]
            assert all(math.isfinite(number) for number in numbers)
        else:
            assert response.headers["content-type"] == "application/problem+json"

    check()


def test_no_query_makes_the_lists_fail(client: TestClient) -> None:
    """Odd filters, quotes and control characters included, find nothing or are refused."""

    @settings(max_examples=60)
    @given(st.text(max_size=20), st.sampled_from(["search", "author", "licence", "limit", "offset"]))
    def check(value: str, name: str) -> None:
        value = value.encode("utf-8", "replace").decode()
        assert client.get("/api/v1/models", params={name: value}).status_code in {200, 422}
        assert client.get("/api/v1/rankings", params={"use_case": "chatbot", "framework": value}).status_code in {200, 422}
        assert client.get("/api/v1/models/" + "".join(f"%{byte:02x}" for byte in value.encode())).status_code in {200, 404}

    check()


def test_a_body_without_end_is_refused(client: TestClient) -> None:
    """A body in chunks, whose length no header tells, is cut off at the limit."""
    response = client.post("/api/v1/recommend", content=(b" " * 1000 for _ in range(100)), headers={"content-type": "application/json"})
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"


def test_models_are_filtered_counted_and_paged(client: TestClient) -> None:
    """Each filter does what it says, pages add up, and the numbers of results are those of the catalog."""
    everything = client.get("/api/v1/models").json()
    assert [model["model_id"] for model in everything["items"]] == ["dyno-82m", "llama-3.1-8b", "qwen--qwen2.5-7b-instruct"]
    assert [model["results"] for model in everything["items"]] == [2, 4, 3]
    assert all(model["measured"] for model in everything["items"])
    for query, found in (
        ("author=qwen", ["qwen--qwen2.5-7b-instruct"]),
        ("licence=MIT", ["dyno-82m"]),
        ("search=2.5-7b", ["qwen--qwen2.5-7b-instruct"]),
        ("search=%25", []),
        ("limit=1&offset=1", ["llama-3.1-8b"]),
    ):
        assert [model["model_id"] for model in client.get(f"/api/v1/models?{query}").json()["items"]] == found, query
    assert client.get("/api/v1/models?limit=1").json()["total"] == 3
    by_id, by_hub_id = (client.get(f"/api/v1/models/{name}").json() for name in ("llama-3.1-8b", "meta-llama/Llama-3.1-8B-Instruct"))
    assert by_id == by_hub_id
    (suits,) = by_id["use_cases"]
    assert (suits["use_case"], suits["workload"], suits["input_tokens"], suits["operating_points"]) == ("chatbot", "chat", 512, 2)
    assert client.get("/api/v1/models/gpt-5").status_code == 404


def test_rankings_come_from_the_marts_best_first(client: TestClient) -> None:
    """Ranks as dbt computed them, also when filtered."""
    everything = client.get("/api/v1/rankings?use_case=chatbot").json()
    ranked = [(row["workload"], row["input_tokens"], row["output_tokens"], row["score_rank"]) for row in everything["items"]]
    # the use case's typical lengths first; each workload with its lengths has its own rank 1
    assert ranked == [("chat", 512, 32, 1), ("chat", 512, 32, 2), ("chat", 512, 32, 3), ("chat_short", 96, 32, 1)]
    assert everything["total"] == 4
    (short,) = client.get("/api/v1/rankings?use_case=chatbot&workload=chat_short&input_tokens=96&output_tokens=32").json()["items"]
    assert short == everything["items"][3]
    assert client.get("/api/v1/rankings?use_case=chatbot&input_tokens=97").json()["total"] == 0
    filtered = client.get("/api/v1/rankings?use_case=chatbot&hardware_id=L4-X1").json()
    assert [(row["hardware_id"], row["model_id"]) for row in filtered["items"]] == [("l4-x1", "llama-3.1-8b")]
    assert filtered["items"][0] in everything["items"]
    assert client.get("/api/v1/rankings?use_case=poetry").status_code == 422
    assert [row["use_case"] for row in client.get("/api/v1/use-cases").json()["items"]] == ["chatbot", "rag"]


def test_new_results_change_the_answer_at_once(serve: Serve, database_url: str, redis_url: str, tmp_path: Path) -> None:
    """A kept answer is not given any more as soon as dbt has built new marts: its key carries the catalog's version."""
    client = serve(database_url=database_url, redis_url=redis_url)
    before = recommend(client, EXAMPLE)
    assert recommend(client, EXAMPLE)["metadata"]["cache"] == "hit"
    deployment = support.id_of("qwen--qwen2.5-7b-instruct", "fp8", "h100-80gb-x4", "vllm")
    faster = support.result(support.id_of(deployment, "chat", 8), rps=30, ttft_ms=30, tpot_ms=5, e2e_ms=180, output_tokens=32, age_h=0)
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(insert(BenchmarkResult), [faster])
    engine.dispose()
    assert recommend(client, EXAMPLE)["metadata"]["cache"] == "hit"
    support.build_marts(database_url, tmp_path)
    after = recommend(client, EXAMPLE)
    assert after["metadata"]["cache"] == "miss"
    assert after["metadata"]["catalog_version"] > before["metadata"]["catalog_version"]
    assert after["recommendations"][0]["evidence"][0]["id"] == str(faster["measurement_id"])
    assert after["recommendations"][0]["operating_point"]["latency_ms"]["p90"] == 180.0


def test_the_api_cannot_write(serve: Serve, database_url: str) -> None:
    """Its sessions are read only, whatever its database user may do."""
    services = serve(database_url=database_url).app.state.services  # type: ignore[attr-defined]  # Starlette's type is ASGIApp
    with pytest.raises(Exception, match="read-only transaction"):
        services.repository._read(lambda c: c.execute(text("DELETE FROM catalog.use_case_taxonomy")))


def test_metrics_tell_requests_by_template_and_the_catalog_version(client: TestClient) -> None:
    """Paths that anyone can invent do not become labels."""
    version = recommend(client, EXAMPLE)["metadata"]["catalog_version"]
    client.get("/api/v1/models/whatever-1")
    client.get("/nowhere/at/all")
    metrics = client.get("/metrics").text
    assert 'dyno_api_requests_total{method="POST",route="/api/v1/recommend",status="200"} 1.0' in metrics
    assert 'route="/api/v1/models/{model_id:path}",status="404"' in metrics
    assert f"dyno_api_catalog_version {version}.0" in metrics
    assert "whatever-1" not in metrics
    assert "nowhere" not in metrics
