"""Dyno and vLLM's bench serve in alternation on a real engine: `.venv/bin/python -m benchmarks.loadgen.agreement --help`.

The engine is the local default (llama.cpp, one thread) with a model that Dyno built. Each run of each client has prompts of its own, the
same for both in kind and length, so that no cache answers. The table has each client's mean over the runs of a load, with its 95 %
interval (Student's t), and the interval of the difference (Welch's t). Beside it stands what the engine counted during the same runs: its
time for a prompt, and for a token. Where the clients differ, that tells whether they saw different things or put a different load.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from scipy import stats

from assets.benchmark.engines.llamacpp import LlamaCpp
from assets.benchmark.engines.process import EngineProcess, free_port
from assets.benchmark.engines.protocol import Launch
from assets.benchmark.engines.registry import ALL_METRICS, METRICS_PATHS
from assets.benchmark.host import host_facts
from assets.benchmark.load.endpoint import Endpoint
from assets.benchmark.load.prompts import ModelTokenizer, TextPrompts
from assets.benchmark.load.server_counters import read_counters
from benchmarks.loadgen.peers import OURS, PEERS, Load, Peer, install, run, version, write_tokenizer

ROOT = Path(__file__).resolve().parents[2]
CONCURRENCIES = (1, 2, 16)
INPUT_TOKENS, OUTPUT_TOKENS = 96, 32
REQUESTS, WAVES = 48, 8
ENGINE_START_TIMEOUT_S = 60.0
MODEL = "model"
NO_CACHE = '{"cache_prompt": false}'
DEFAULT_MODEL = ROOT / ".dyno" / "models" / "dyno-43m" / "q4_0" / "model.gguf"
COLUMNS = (
    "streams", "metric, ms", "dyno: mean, 95 % interval", "vllm: mean, 95 % interval", "difference, 95 % interval",
    "the engine's own, during dyno's runs", "during vllm's",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """The means of one run of a client, in ms, and what the engine counted meanwhile: a prompt's prefill, and the time of a token."""

    ttft_ms: float
    itl_ms: float
    e2e_ms: float
    engine_prompt_ms: float
    engine_token_ms: float


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loadgen.agreement", description=__doc__)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="GGUF file; ./dyno demo makes one")
    parser.add_argument("--concurrency", type=int, nargs="*", default=CONCURRENCIES)
    parser.add_argument("--runs", type=int, default=5, help="runs of each client at each load")
    parser.add_argument("--environments", type=Path, default=ROOT / ".dyno" / "peers", help="where the peers are installed")
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    options = parser.parse_args()
    peer = PEERS["vllm"]
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    with tempfile.TemporaryDirectory(prefix="dyno-agreement-") as folder, Progress(console=Console(stderr=True)) as bar:
        scratch = Path(folder)
        environments = {client.name: install(client, options.environments.resolve()) for client in (OURS, peer)}
        tokenizer = ModelTokenizer.from_file(write_tokenizer(scratch / "tokenizer"))
        task = bar.add_task("starting the engine", total=2 * options.runs * len(options.concurrency))
        for streams in options.concurrency:
            found: dict[str, list[Found]] = {OURS.name: [], peer.name: []}
            launch = Launch(str(options.model), free_port(), streams, 2 * (INPUT_TOKENS + OUTPUT_TOKENS), 1, {})
            with EngineProcess(LlamaCpp(), launch, scratch / "engine.log", ENGINE_START_TIMEOUT_S, lambda _: None):
                for number in range(options.runs):
                    # who goes first alternates as well
                    for client in (OURS, peer) if number % 2 else (peer, OURS):
                        bar.update(task, description=f"{client.name} at {streams} streams")
                        dataset = _dataset(scratch / f"{streams}-{number}-{client.name}.jsonl", tokenizer, max(REQUESTS, WAVES * streams))
                        count = max(REQUESTS, WAVES * streams)
                        load = Load(count, INPUT_TOKENS, OUTPUT_TOKENS, streams, dataset=dataset, model=MODEL, extra_body=NO_CACHE)
                        found[client.name].append(_run(client, environments[client.name], launch.base_url, load, scratch))
                        bar.advance(task)
            lines += _rows(streams, found[OURS.name], found[peer.name])
    table = "\n".join(
        [*lines, "", f"vllm {version(peer)}, llama.cpp {LlamaCpp().version(None)}; {options.runs} runs each; {host_facts()}."]
    )
    print(table)
    if options.markdown is not None:
        options.markdown.write_text(table + "\n", encoding="utf-8")
    return 0


def _dataset(path: Path, tokenizer: ModelTokenizer, requests: int) -> Path:
    """Prompts that no run before had."""
    prompts = TextPrompts(tokenizer.words()).make([INPUT_TOKENS] * requests, seed=0, nonce=abs(hash(path.name)))
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts), encoding="utf-8")
    return path


def _run(client: Peer, environment: Path, url: str, load: Load, scratch: Path) -> Found:
    """The means of one run. Raises PeerError."""
    endpoint = Endpoint.parse(url)
    before = read_counters(endpoint, ALL_METRICS, METRICS_PATHS)
    reported, _ = run(client, environment, url, load, scratch)
    counted = read_counters(endpoint, ALL_METRICS, METRICS_PATHS).since(before)
    gaps_ms = [np.asarray(request.gaps_ms) for request in reported if request.gaps_ms is not None]
    ttft_ms = np.asarray([request.ttft_ms for request in reported])
    return Found(
        ttft_ms=float(ttft_ms.mean()),
        itl_ms=float(np.concatenate(gaps_ms).mean()),
        e2e_ms=float(ttft_ms.mean() + np.mean([gaps.sum() for gaps in gaps_ms])),
        engine_prompt_ms=1e3 * (counted.prefill_s or 0.0) * load.input_tokens / (counted.prompt_tokens or 1.0),
        engine_token_ms=1e3 * (counted.decode_s or 0.0) / (counted.generated_tokens or 1.0),
    )


def _rows(streams: int, ours: Sequence[Found], theirs: Sequence[Found]) -> list[str]:
    rows: list[str] = []
    for metric, name, engine in (("TTFT", "ttft_ms", "engine_prompt_ms"), ("ITL", "itl_ms", "engine_token_ms"), ("e2e", "e2e_ms", None)):
        a, b = (np.asarray([getattr(run, name) for run in runs]) for runs in (ours, theirs))
        difference = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
        own = [f"{np.mean([getattr(run, engine) for run in runs]):.2f}" if engine else "-" for runs in (ours, theirs)]
        cells = (str(streams), metric, _mean(a), _mean(b), f"{difference.low:.2f} to {difference.high:.2f}", *own)
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _mean(values: np.typing.NDArray[np.float64]) -> str:
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return f"{values.mean():.2f}, {values.mean() - half:.2f} to {values.mean() + half:.2f}"


if __name__ == "__main__":
    sys.exit(main())
