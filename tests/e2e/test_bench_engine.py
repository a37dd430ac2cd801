"""`./dyno bench` against a real engine: what it counts is what the engine itself counts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from assets.benchmark.engines.llamacpp import LlamaCpp
from assets.benchmark.engines.process import EngineProcess, free_port
from assets.benchmark.engines.protocol import Launch
from assets.models.folders import model_dir
from tests.e2e.conftest import MODEL, Demo, dyno

pytestmark = [pytest.mark.engine, pytest.mark.services, pytest.mark.timeout(900)]

START_TIMEOUT_S = 60.0
REQUESTS, INPUT_TOKENS, OUTPUT_TOKENS = 12, 64, 16


@pytest.fixture(scope="module")
def engine(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """llama.cpp on the demo's model, with room for four requests at once; gives its URL."""
    launch = Launch(str(model_dir(demo.state_dir, MODEL) / "q4_0" / "model.gguf"), free_port(), 4, 512, 1, {})
    log = tmp_path_factory.mktemp("engine") / "engine.log"
    with EngineProcess(LlamaCpp(), launch, log, START_TIMEOUT_S, lambda _: None):
        yield launch.base_url


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_the_engines_own_counters_agree(engine: str, demo: Demo, tmp_path: Path, api: str) -> None:
    """Every token that the client counts was generated, and every prompt was computed: none came out of a cache."""
    tokenizer = next(model_dir(demo.state_dir, MODEL).rglob("tokenizer.json"))
    result = dyno(
        "bench", "--url", engine, "--model", "model", "--api", api, "--concurrency", "2", "--requests", str(REQUESTS),
        "--input-tokens", str(INPUT_TOKENS), "--output-tokens", str(OUTPUT_TOKENS), "--tokenizer", str(tokenizer), "--json",
        state_dir=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["requests"] == {"sent": REQUESTS, "completed": REQUESTS, "failed": 0}
    counters = document["engine"]["counters"]
    assert counters["generated_tokens"] == REQUESTS * OUTPUT_TOKENS
    assert document["metrics"]["output_tokens_mean"] == OUTPUT_TOKENS
    assert counters["prompt_tokens"] == pytest.approx(REQUESTS * document["metrics"]["input_tokens_mean"], rel=0.05)
    assert counters["prefill_s"] > 0
    assert counters["decode_s"] > 0
    assert document["client"]["error_ms"]["p99"] is not None
