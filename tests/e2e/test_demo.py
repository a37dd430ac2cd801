"""`./dyno demo`: from nothing to a recommendation, and again without measuring anything twice."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from assets.models.folders import model_dir
from orchestration.local.processes import INSTANCE_VARIABLE, find_marked, instance_id
from orchestration.settings import REPO_ROOT
from tests.deadlines import eventually
from tests.e2e.conftest import MODEL, Demo, dyno

pytestmark = [pytest.mark.engine, pytest.mark.services, pytest.mark.timeout(900)]

REQUESTS = 20
LEVELS = [1, 2, 4, 8, 16]


def test_every_load_point_is_measured_on_the_requests_that_are_promised(demo: Demo) -> None:
    """Two quantizations at five load levels, 20 requests each and two a stream, every one completed with all of its tokens."""
    measured = demo.document["measured"]
    assert demo.document["measured_now"] == len(measured) == 10
    assert {point["quantization"] for point in measured} == {"q8_0", "q4_0"}
    for quantization in ("q8_0", "q4_0"):
        assert [point["concurrency"] for point in measured if point["quantization"] == quantization] == LEVELS
    for point in measured:
        assert (point["requests_completed"], point["requests_failed"]) == (max(REQUESTS, 2 * point["concurrency"]), 0)
        assert point["kind"] == "measured"
    assert "20 requests" in demo.document["protocol"]["description"]


def test_a_number_is_what_its_evidence_says(demo: Demo) -> None:
    """The recommendation's evidence names a measurement of this run, and the request records behind it give its throughput again."""
    best = demo.document["recommendation"]["recommendations"][0]
    evidence = best["evidence"][0]
    point = next(point for point in demo.document["measured"] if point["measurement_id"] == evidence["id"])
    assert best["operating_point"]["output_tokens_per_s"] == pytest.approx(point["output_tokens_per_s"])

    checkpoint = demo.state_dir / re.sub(r"\.[0-9a-f]{16}\.requests\.jsonl\.gz$", ".json", evidence["source"])
    measurement = json.loads(checkpoint.read_text())["measurement"]
    packed = (demo.state_dir / evidence["source"]).read_bytes()
    assert hashlib.sha256(packed).hexdigest() == measurement["artifact"]["sha256"]
    requests = [json.loads(line) for line in gzip.decompress(packed).splitlines()]
    assert len(requests) == point["requests_completed"]
    tokens = sum(request["output_tokens"] for request in requests)
    assert tokens == len(requests) * point_output_tokens(demo)
    assert tokens / measurement["duration_s"] == pytest.approx(point["output_tokens_per_s"])


def point_output_tokens(demo: Demo) -> int:
    """The output length of the demo's workload."""
    return int(demo.document["recommendation"]["recommendations"][0]["operating_point"]["output_tokens"])


def test_the_ranking_is_complete_and_in_order(demo: Demo) -> None:
    """Both deployments are ranked, by falling score."""
    items = demo.document["rankings"]["items"]
    assert [item["score_rank"] for item in items] == [1, 2]
    assert all(better["score"] >= worse["score"] for better, worse in pairwise(items))


def test_again_it_measures_nothing_and_repairs_what_is_damaged(demo: Demo) -> None:
    """A damaged model file is reported and made anew; every measurement that is there stays as it is."""
    damaged = model_dir(demo.state_dir, MODEL) / "f16" / "model.gguf"
    with damaged.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"damage")
    ended = dyno("demo", "--model", MODEL, "--json", state_dir=demo.state_dir)
    assert ended.returncode == 0, ended.stderr
    assert f"{damaged} is damaged" in ended.stderr.replace("\n", "")
    document = json.loads(ended.stdout)
    assert document["measured_now"] == 0
    assert document["measured"] == demo.document["measured"]


def test_ctrl_c_ends_a_measurement_at_once_and_keeps_what_is_finished(demo: Demo, tmp_path: Path) -> None:
    """A terminal's Ctrl-C reaches every process of the group: one ends the command, without a traceback and without leaving a process."""
    state_dir = tmp_path / "s"
    shutil.copytree(model_dir(demo.state_dir, MODEL), model_dir(state_dir, MODEL))
    with (tmp_path / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "orchestration.cli", "demo", "--model", MODEL],
            cwd=REPO_ROOT,
            env={**os.environ, "PYTHONPATH": str(REPO_ROOT), "DYNO_STATE_DIR": str(state_dir)},
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
            # a background job of a shell ignores Ctrl-C, and so would what these tests start when they run in one
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509  # no thread of ours forks here
        )
        try:
            eventually(lambda: list((state_dir / "checkpoints").rglob("*.requests.jsonl.gz")), "a finished load point", 120)
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(60) == 130
        finally:
            process.kill()
            process.wait()
    assert "Traceback" not in (tmp_path / "stderr").read_text(encoding="utf-8")
    eventually(lambda: not find_marked(INSTANCE_VARIABLE, instance_id(state_dir)), "every process is gone")
    assert list((state_dir / "checkpoints").rglob("*.requests.jsonl.gz"))
