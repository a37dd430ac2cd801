"""`./dyno recommend` as a person runs it: with the API up and without, with good and bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api.schemas.response import RecommendResponse
from orchestration.local import ports, state
from orchestration.local.environment import Endpoints
from orchestration.local.processes import owner_mark
from orchestration.settings import REPO_ROOT

pytestmark = pytest.mark.services

EXAMPLE = ("--use-case", "chatbot", "--rps", "30", "--input-tokens", "512", "--latency-p90-ms", "300")
DEADLINE_S = 60

Run = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class RunningApi:
    """Where it answers, and its log."""

    url: str
    log: Path


@pytest.fixture
def environment(database_url: str, redis_url: str, state_dir: Path) -> dict[str, str]:
    return dict(os.environ) | {
        "DYNO_DATABASE_URL": database_url,
        "DYNO_DAGSTER_DATABASE_URL": database_url,
        "DYNO_REDIS_URL": redis_url,
        "DYNO_STATE_DIR": str(state_dir),
    }


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    def call(*arguments: str, text: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "orchestration.cli", "recommend", *arguments]
        return subprocess.run(
            command, env=environment | variables, cwd=REPO_ROOT, capture_output=True, text=True, input=text, timeout=120, check=False
        )

    return call


@pytest.fixture
def running_api(environment: dict[str, str], database_url: str, redis_url: str, state_dir: Path, tmp_path: Path) -> Iterator[RunningApi]:
    """The API as `./dyno up` serves it, and the record that it leaves for other commands."""
    port, log = ports.choose(None, "DYNO_API_PORT"), tmp_path / "api.log"
    command = [sys.executable, "-m", "uvicorn", "api.main:app", "--host", ports.HOST, "--port", str(port)]
    url = f"http://{ports.HOST}:{port}"
    with log.open("wb") as stream, subprocess.Popen(command, env=environment, cwd=REPO_ROOT, stdout=stream, stderr=stream) as process:
        try:
            deadline = time.monotonic() + DEADLINE_S
            while not _alive(url):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
            record = state.InstanceRecord("up", "up", owner_mark(), datetime.now(UTC).isoformat())
            state.write_record(state_dir, record, Endpoints(database_url, database_url, redis_url, url))
            yield RunningApi(url, log)
        finally:
            process.terminate()


def _alive(url: str) -> bool:
    try:
        return httpx2.get(url + "/healthz", trust_env=False, timeout=2).status_code == 200
    except httpx2.TransportError:
        return False


def answer_of(ended: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert ended.returncode == 0, ended.stderr
    document: dict[str, Any] = json.loads(ended.stdout)
    RecommendResponse.model_validate(document)
    return document


def test_without_an_api_the_same_code_answers(run: Run) -> None:
    """A readable answer names what to run, on what, for how much, and the measurement; --json gives one document and nothing else."""
    ended = run(*EXAMPLE)
    assert ended.returncode == 0, ended.stderr
    for words in ("Qwen2.5-7B (4xH100)", "1 replica of 4 x H100", "27.52 USD/h", "200 requests", "file:results/requests.jsonl.gz"):
        assert words in ended.stdout
    assert answer_of(run(*EXAMPLE, "--json"))["metadata"]["cache"] == "hit"


def test_with_an_api_it_is_asked(run: Run, running_api: RunningApi, database_url: str, redis_url: str) -> None:
    """The running API gets the question, a proxy that the environment names does not; its log is JSON without passwords."""
    answer = answer_of(run(*EXAMPLE, "--json", HTTP_PROXY="http://127.0.0.1:9", http_proxy="http://127.0.0.1:9"))
    assert answer["recommendations"][0]["label"] == "Qwen2.5-7B (4xH100)"
    metrics = httpx2.get(running_api.url + "/metrics", trust_env=False).text
    assert 'route="/api/v1/recommend",status="200"} 1.0' in metrics
    log = running_api.log.read_text()
    entries = [json.loads(line) for line in log.splitlines()]
    assert any(entry["message"] == "request" and entry["route"] == "/api/v1/recommend" for entry in entries)
    for secret in (database_url, redis_url):
        assert secret.partition("@")[0].rpartition(":")[2] not in log


def test_a_request_file_with_options_on_top(run: Run) -> None:
    """Standard input works as a file, and options win over it."""
    ended = run(
        "--request", "-", "--top", "1", "--json", text=json.dumps({"use_case": "chatbot", "top": 4, "constraints": {"gpus": ["cpu"]}})
    )
    assert [entry["label"] for entry in answer_of(ended)["recommendations"]] == ["dyno-82m (cpu)"]


def test_when_nothing_is_feasible_the_changes_are_shown(run: Run) -> None:
    ended = run("--latency-p90-ms", "100")
    assert ended.returncode == 0
    assert "sla.latency_p90_ms: 100 -> 220" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--ttft-p90-ms", "-5"), "--ttft-p90-ms: input should be greater"),
        (("--use-case", "poetry"), "choose one of chatbot, rag"),
    ],
)
def test_bad_input_is_an_error_with_a_remedy(run: Run, arguments: tuple[str, ...], words: str) -> None:
    ended = run(*arguments)
    assert ended.returncode != 0
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: ")
    assert words in ended.stderr.replace("\n", " ")
    assert "Traceback" not in ended.stderr
