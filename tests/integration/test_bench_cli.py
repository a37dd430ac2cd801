"""`./dyno bench` measures any OpenAI-compatible server, and says in a sentence why it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from assets.models.local.tokenizer import local_tokenizer_json
from tests import ground_truth_server

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ground_truth_server.running() as address:
        yield address


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestration.cli", "bench", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_one_json_document_on_standard_output(url: str, tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text(local_tokenizer_json(), encoding="utf-8")
    result = bench(
        "--url", f"{url}/v1", "--model", "truth", "--concurrency", "3", "--requests", "12", "--input-tokens", "64", "--output-tokens", "4",
        "--tokenizer", str(tokenizer), "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["requests"] == {"sent": 12, "completed": 12, "failed": 0}
    for name in ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms"):
        assert set(document["metrics"][name]) == {"mean", "p50", "p90", "p95", "p99"}
    assert document["metrics"]["output_tokens_per_s"] == pytest.approx(4 * document["metrics"]["requests_per_s"])
    assert document["metrics"]["input_tokens_mean"] == 64
    assert document["client"]["prompts"] == "token ids"


def test_a_table_for_people(url: str) -> None:
    result = bench("--url", url, "--model", "truth", "--requests", "3", "--output-tokens", "4")
    assert result.returncode == 0, result.stderr
    for word in ("TTFT", "TPOT", "ITL", "e2e", "output tokens per second", "3 / 3 / 0"):
        assert word in result.stdout
    assert "few_requests" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--url", "http://127.0.0.1:1", "--model", "m"), "cannot connect to 127.0.0.1:1"),
        (("--url", "URL", "--model", "missing"), "the server does not serve 'missing'; it serves: truth"),
        (("--url", "localhost", "--model", "m"), "expected http://HOST:PORT"),
        (("--url", "URL", "--model", "truth", "--tokenizer", "none.json"), "cannot read the tokenizer none.json"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(url: str, arguments: tuple[str, ...], words: str) -> None:
    result = bench(*(url if argument == "URL" else argument for argument in arguments))
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
