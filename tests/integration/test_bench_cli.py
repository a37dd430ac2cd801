"""`./dyno bench` measures any OpenAI-compatible server, and says in a sentence why it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

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


def test_an_open_loop_with_all_its_files(url: str, tmp_path: Path) -> None:
    files = {name: tmp_path / f"result.{name}" for name in ("json", "parquet", "html")}
    result = bench(
        "--url", url, "--model", "truth", "--api", "chat", "--rate", "20", "--arrival", "gamma", "--burstiness", "0.5", "--duration", "1",
        "--output-tokens", "4", "--slo", "ttft<=10000", "--json", str(files["json"]), "--parquet", str(files["parquet"]),
        "--html", str(files["html"]),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    document = json.loads(files["json"].read_text(encoding="utf-8"))
    assert (document["load"]["mode"], document["load"]["rate_per_s"], document["load"]["burstiness"]) == ("open", 20, 0.5)
    assert document["requests"] == {"sent": 20, "completed": 20, "failed": 0}
    assert document["goodput_per_s"] == pytest.approx(document["metrics"]["requests_per_s"])
    for name in ("error_ms", "schedule_lag_ms"):
        assert document["client"][name]["p99"] is not None
    rows = parquet.read_table(files["parquet"]).to_pylist()
    assert [row["index"] for row in rows] == list(range(20))
    assert all(row["start_ms"] >= row["due_ms"] == row["clock_ms"] for row in rows)
    assert "TTFT" in files["html"].read_text(encoding="utf-8")


def test_the_highest_load_that_meets_objectives_is_searched(url: str) -> None:
    """An objective that nothing meets ends the search with no load found, and says what was missed."""
    options = ("--url", url, "--model", "truth", "--find-max", "--requests", "4", "--output-tokens", "4", "--no-calibrate", "--json")
    document = json.loads(bench(*options, "--slo", "ttft<=0.001").stdout)
    assert (document["find_max"]["max"], len(document["find_max"]["probes"])) == (None, 1)
    assert document["find_max"]["probes"][0]["missed"]


def test_repeats_tell_the_variance_between_runs(url: str) -> None:
    result = bench(
        "--url", url, "--model", "truth", "--requests", "4", "--output-tokens", "4", "--repeats", "3", "--no-calibrate", "--json"
    )
    document = json.loads(result.stdout)
    assert len(document["repeats"]) == 3
    between = document["between_runs"]["output_tokens_per_s"]
    low, high = between["interval"]
    assert low < between["mean"] < high
    assert between["sd"] > 0


def test_calibrate_shows_what_the_client_makes_of_the_truth() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "orchestration.cli", "calibrate", "--concurrency", "4", "--rate", "20", "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    closed, opened = json.loads(result.stdout)["calibrations"]
    assert (closed["concurrency"], closed["failed"], opened["rate_per_s"], opened["failed"]) == (4, 0, 20, 0)
    for calibration in (closed, opened):
        assert calibration["ttft_error_ms"]["p99"] is not None
        assert calibration["schedule_lag_ms"]["p99"] >= 0
    assert 0 < closed["efficiency"] <= 1.001
    assert opened["rate_error_share"] >= 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--url", "URL", "--model", "truth", "--rate", "5", "--concurrency", "2"), "give one of --concurrency, --rate"),
        (("--url", "URL", "--model", "truth", "--find-max"), "--find-max needs --slo"),
        (("--url", "URL", "--model", "truth", "--slo", "fast"), "'fast' is no objective"),
        (("--url", "URL", "--model", "truth", "--rate", "5", "--precision", "0.1"), "--precision ends a closed loop"),
        (("--url", "URL", "--model", "truth", "--stages", "5:1", "--duration", "9"), "leave --requests and --duration out"),
        (("--url", "URL", "--model", "truth", "--find-max", "--slo", "ttft<=1", "--repeats", "2"), "a search repeats nothing"),
        (("--url", "URL", "--model", "truth", "--extra-body", "[1]"), "give a JSON object"),
        (("--url", "URL", "--model", "truth", "--html", "/nowhere/r.html"), "--html /nowhere/r.html cannot be written: No such file"),
        (("--url", "URL", "--model", "truth", "--stages", "5"), "give RATE:SECONDS"),
        (("--url", "URL", "--model", "truth", "--input-tokens", "many"), "'many' is no length"),
        (("--url", "URL", "--model", "truth", "--trace", "none.csv"), "cannot read the trace none.csv"),
        (("--url", "URL", "--model", "truth", "--api", "grpc"), "one of completions, chat, tgi"),
        (("--url", "unix:/none.sock", "--model", "truth"), "cannot connect to /none.sock"),
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


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The requests of a run, in the order of their starts."""
    rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return rows


def test_a_trace_is_replayed_with_its_lengths_at_its_instants(url: str, tmp_path: Path) -> None:
    """Mooncake's format, twice as fast; exact lengths need the tokenizer."""
    tokenizer, trace, requests = tmp_path / "tokenizer.json", tmp_path / "trace.jsonl", tmp_path / "requests.parquet"
    tokenizer.write_text(local_tokenizer_json(), encoding="utf-8")
    lengths = [40, 700, 25]
    lines = [
        {"timestamp": 200 * n, "input_length": length, "output_length": 4, "hash_ids": [1, n + 2][: -(-length // 512)]}
        for n, length in enumerate(lengths)
    ]
    trace.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    result = bench(
        "--url", url, "--model", "truth", "--trace", str(trace), "--trace-speed", "2", "--tokenizer", str(tokenizer), "--no-calibrate",
        "--parquet", str(requests), "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["load"]["mode"], document["workload"]["trace_requests"]) == ("trace", 3)
    rows = sorted(rows_of(requests), key=lambda row: row["index"])
    assert [row["input_tokens"] for row in rows] == lengths
    assert [row["due_ms"] - rows[0]["due_ms"] for row in rows] == pytest.approx([0, 100, 200])


def test_stages_follow_one_another(url: str, tmp_path: Path) -> None:
    requests = tmp_path / "requests.parquet"
    result = bench(
        "--url", url, "--model", "truth", "--stages", "10:0.5,40:0.5", "--arrival", "constant", "--output-tokens", "4", "--no-calibrate",
        "--parquet", str(requests), "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["load"]["rate_per_s"] == 25
    due_ms = sorted(row["due_ms"] for row in rows_of(requests))
    assert (sum(due < 500 for due in due_ms), sum(due >= 500 for due in due_ms)) == (5, 20)


def test_conversations_take_turns_and_think(url: str, tmp_path: Path) -> None:
    requests = tmp_path / "requests.parquet"
    result = bench(
        "--url", url, "--model", "truth", "--api", "chat", "--turns", "3", "--think-time-s", "0.1", "--concurrency", "2", "--requests", "4",
        "--input-tokens", "40", "--output-tokens", "4", "--no-calibrate", "--parquet", str(requests), "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["requests"] == {"sent": 12, "completed": 12, "failed": 0}
    for conversation in range(4):
        rows = sorted((row for row in rows_of(requests) if row["index"] == conversation), key=lambda row: row["turn"])
        assert [row["turn"] for row in rows] == [0, 1, 2]
        assert rows[0]["input_tokens"] < rows[1]["input_tokens"] < rows[2]["input_tokens"]
        assert all(later["start_ms"] - earlier["end_ms"] >= 100 for earlier, later in pairwise(rows))


def test_prompts_may_come_from_a_dataset(url: str, tmp_path: Path) -> None:
    dataset = tmp_path / "prompts.jsonl"
    dataset.write_text('{"prompt": "one two three"}\n{"prompt": "four"}\n', encoding="utf-8")
    result = bench(
        "--url", url, "--model", "truth", "--dataset", str(dataset), "--requests", "2", "--output-tokens", "4", "--throughput",
        "--no-calibrate", "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["workload"]["dataset"], document["load"]["concurrency"]) == ("prompts.jsonl", 2)
    assert document["metrics"]["input_tokens_mean"] == (3 + 2 * 3 + 3 + 2 * 1) / 2


@pytest.mark.parametrize("option", ["--json", "--parquet", "--html"])
def test_a_disk_that_is_full_is_said_in_one_line_and_nothing_is_deleted(url: str, tmp_path: Path, option: str) -> None:
    target = tmp_path / "result"
    target.symlink_to("/dev/full")
    result = bench("--url", url, "--model", "truth", "--requests", "3", "--output-tokens", "4", "--no-calibrate", option, str(target))
    assert result.returncode == 1
    assert f"{option} {target} cannot be written: No space left on device" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert target.is_symlink()
    assert Path("/dev/full").is_char_device()


def test_a_duration_ends_a_closed_loop_and_nothing_else_does(url: str) -> None:
    """A server that answers at once gets far more than the hundred requests of a load point without a duration."""
    result = bench(
        "--url", url, "--model", "truth", "--concurrency", "2", "--duration", "1.5", "--output-tokens", "4", "--no-calibrate", "--json"
    )
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["load"]["requests"], document["load"]["duration_s"]) == (None, 1.5)
    assert document["requests"]["completed"] > 120
    assert document["requests"]["failed"] == 0


def test_an_answer_that_ends_by_itself_is_counted_and_is_no_failure(url: str) -> None:
    """The server takes `ignore_eos` and stops after two tokens of four all the same."""
    result = bench(
        "--url", url, "--model", "truth", "--requests", "5", "--output-tokens", "4", "--no-calibrate", "--json",
        "--extra-body", '{"scenario": {"chunks": 2}}',
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["requests"]["completed"], document["stopped_early"]) == (5, 5)
    assert "output_tokens_off_target" in document["quality_flags"]


def test_a_slow_open_loop_is_calibrated_at_a_rate_that_takes_no_minute(url: str) -> None:
    result = bench("--url", url, "--model", "truth", "--rate", "0.9", "--requests", "2", "--output-tokens", "4", "--json")
    assert result.returncode == 0, result.stderr
    client = json.loads(result.stdout)["client"]
    assert client["calibrated_rate_per_s"] == 6
    assert client["error_ms"]["p99"] is not None


def test_a_calibration_has_more_connections_than_the_usual_limit_of_files() -> None:
    """1,024 streams at a soft limit of 256 files, as the usual 1,024 is to them."""
    result = subprocess.run(
        ["/bin/sh", "-c", f"ulimit -Sn 256; exec {sys.executable} -m orchestration.cli calibrate --concurrency 300 --json"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    [calibration] = json.loads(result.stdout)["calibrations"]
    assert (calibration["requests"], calibration["failed"]) == (1200, 0)
