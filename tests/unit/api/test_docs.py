"""The documentation page and the OpenAPI document, without a database."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from api.schemas.request import RecommendRequest
from api.settings import ApiSettings


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    settings = ApiSettings.model_validate({"database_url": "postgresql://nobody:none@127.0.0.1:1/none", "redis_url": None})
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def test_the_docs_page_needs_no_other_host(client: TestClient) -> None:
    """Everything that /docs loads comes from this server, style sheet included; no validator elsewhere is asked."""
    page = client.get("/docs")
    assert page.status_code == 200
    assert not re.search(r"https?://|//[a-z]", page.text.replace("// ", ""))
    assert '"validatorUrl": null' in page.text
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(assets) == 3
    for asset in assets:
        response = client.get(asset)
        assert response.status_code == 200
        assert len(response.content) > 1000
        if asset.endswith(".css"):
            assert not re.search(r"url\(['\"]?https?:", response.text)
    assert client.get("/redoc").status_code == 404


def test_the_examples_in_the_document_are_valid_requests(client: TestClient) -> None:
    """What the page offers to try out works as it is."""
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/api/v1/recommend"]["post"]
    examples = operation["requestBody"]["content"]["application/json"]["examples"]
    assert len(examples) == 2
    for example in examples.values():
        RecommendRequest.model_validate(example["value"]).terms()
    assert set(operation["responses"]["422"]["content"]) == {"application/problem+json"}
    assert "Problem" in document["components"]["schemas"]


def test_without_a_database_the_process_is_alive_and_not_ready(client: TestClient) -> None:
    assert client.get("/healthz").status_code == 200
    readiness = client.get("/readyz")
    assert readiness.status_code == 503
    assert readiness.json()["parts"]["database"]["ok"] is False


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("PUT", "/api/v1/models", 405), ("GET", "/api/v1/models?limit=0", 422), ("GET", "/api/v1/models", 503)],
)
def test_every_error_is_a_problem_document(client: TestClient, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]


def test_a_request_carries_an_id_through(client: TestClient) -> None:
    """A well-formed id of the caller's is kept, anything else is replaced."""
    assert client.get("/healthz", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert re.fullmatch("[0-9a-f]{32}", client.get("/healthz", headers={"x-request-id": 'a"b\tc'}).headers["x-request-id"])


def test_a_fault_of_the_api_is_a_problem_document_without_its_cause(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cause goes to the log, under the id that the client gets."""

    def break_down(*_: object) -> None:
        raise RuntimeError("secret cause")

    services = client.app.state.services  # type: ignore[attr-defined]  # Starlette's type is ASGIApp
    monkeypatch.setattr(type(services.repository), "use_cases", break_down)
    response = client.get("/api/v1/use-cases", headers={"x-request-id": "fault-1"})
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert "fault-1" in response.json()["detail"]
    assert "secret" not in response.text
