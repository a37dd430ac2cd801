"""The load generators of others: each in an environment of its own, run from its command line, read from its own per-request output."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from pyarrow import parquet

from assets.benchmark.load.load_loop import REQUEST_ID_PREFIX
from assets.models.local.tokenizer import local_tokenizer_json

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).parent / "requirements"
SAMPLE_S = 0.2
RUN_TIMEOUT_S = 600


class PeerError(Exception):
    """A peer could not be installed or run; the message has its last words."""


@dataclass(frozen=True, slots=True)
class Load:
    """One load: `concurrency` streams, or `rate_per_s` evenly spaced arrivals. `dataset` (JSONL) has the prompts, else they are random.

    `extra_body` is JSON that every request carries.
    """

    requests: int
    input_tokens: int
    output_tokens: int
    concurrency: int | None = None
    rate_per_s: float | None = None
    dataset: Path | None = None
    model: str = "truth"
    extra_body: str | None = None

    @property
    def name(self) -> str:
        """For a person."""
        return f"{self.concurrency} streams" if self.concurrency is not None else f"{self.rate_per_s:g} req/s"


@dataclass(frozen=True, slots=True)
class Reported:
    """One request as a client reports it: its id where the server was told it, else when it started and ended (Unix time).

    `gaps_ms` is None where the client keeps no single gaps.
    """

    id: str | None
    ttft_ms: float
    gaps_ms: tuple[float, ...] | None
    start_s: float = 0.0
    end_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What a client's whole process tree took, start-up included."""

    cpu_s: float
    memory_bytes_max: int


@dataclass(frozen=True, slots=True)
class Peer:
    """`command` gives the arguments for (environment, url, load, tokenizer folder, output folder); `read` its requests from that folder."""

    name: str
    package: str
    command: Callable[[Path, str, Load, Path, Path], list[str]]
    read: Callable[[Path], list[Reported]]


def _vllm(environment: Path, url: str, load: Load, tokenizer: Path, out: Path) -> list[str]:
    # a Gamma process of a great shape is evenly spaced
    rate = (
        ["--request-rate", str(load.rate_per_s), "--burstiness", "1000000"]
        if load.rate_per_s
        else ["--max-concurrency", str(load.concurrency)]
    )
    if load.dataset is None:
        prompts = ["random", "--random-input-len", str(load.input_tokens), "--random-output-len", str(load.output_tokens)]
    else:
        prompts = ["custom", "--dataset-path", str(load.dataset), "--custom-output-len", str(load.output_tokens), "--skip-chat-template"]
    return [
        str(environment / "bin" / "vllm"), "bench", "serve", "--backend", "openai", "--base-url", url, "--model", load.model,
        "--tokenizer", str(tokenizer), "--dataset-name", *prompts, "--num-prompts", str(load.requests), "--ignore-eos", "--disable-tqdm",
        "--save-result", "--save-detailed", "--result-dir", str(out), "--result-filename", "result.json",
        "--request-id-prefix", "peer-", *rate, *_extra_body(load),
    ]  # fmt: skip


def _extra_body(load: Load) -> list[str]:
    return [] if load.extra_body is None else ["--extra-body", load.extra_body]


def _read_vllm(out: Path) -> list[Reported]:
    result = json.loads((out / "result.json").read_text())
    return [
        Reported(f"peer-{index}", ttft * 1e3, tuple(gap * 1e3 for gap in gaps))
        for index, (ttft, gaps) in enumerate(zip(result["ttfts"], result["itls"], strict=True))
        if ttft
    ]


def _guidellm(environment: Path, url: str, load: Load, tokenizer: Path, out: Path) -> list[str]:
    profile = f"kind=constant,rate={load.rate_per_s}" if load.rate_per_s else f"kind=concurrent,streams={load.concurrency}"
    return [
        str(environment / "bin" / "guidellm"), "run",
        "--backend", f"kind=openai_http,target={url},model=truth,request_format=/v1/completions",
        "--profile", profile, "--constraint", f"kind=max_requests,count={load.requests}",
        "--tokenizer", f"kind=hf_auto,model={tokenizer}",
        "--data", f"kind=synthetic_text,prompt_tokens={load.input_tokens},output_tokens={load.output_tokens}",
        "--output", f"kind=json,path={out / 'result.json'}", "--disable-console-interactive",
    ]  # fmt: skip


def _read_guidellm(out: Path) -> list[Reported]:
    [benchmark] = json.loads((out / "result.json").read_text())["benchmarks"]
    requests = benchmark["requests"]["successful"]
    timings = [request["info"]["timings"] for request in requests]
    return [
        Reported(None, request["time_to_first_token_ms"], None, timing["request_start"], timing["last_token_iteration"])
        for request, timing in zip(requests, timings, strict=True)
    ]


def _aiperf(environment: Path, url: str, load: Load, tokenizer: Path, out: Path) -> list[str]:
    rate = (
        ["--request-rate", str(load.rate_per_s), "--arrival-pattern", "constant"]
        if load.rate_per_s
        else ["--concurrency", str(load.concurrency)]
    )
    return [
        str(environment / "bin" / "aiperf"), "profile", "--model", "truth", "--url", url, "--endpoint-type", "completions", "--streaming",
        "--tokenizer", str(tokenizer), "--isl", str(load.input_tokens), "--osl", str(load.output_tokens),
        "--request-count", str(load.requests), "--artifact-dir", str(out), "--ui", "none", "--export-level", "records",
        "--extra-inputs", "ignore_eos:true", "--no-gpu-telemetry", "--no-server-metrics", *rate,
    ]  # fmt: skip


def _read_aiperf(out: Path) -> list[Reported]:
    lines = (json.loads(line) for line in (out / "profile_export.jsonl").read_text().splitlines())
    return [
        Reported(
            line["metadata"]["x_request_id"],
            line["metrics"]["time_to_first_token"]["value"],
            tuple(line["metrics"]["inter_chunk_latency"]["value"]),
        )
        for line in lines
        if "time_to_first_token" in line["metrics"]
    ]


def _dyno(environment: Path, url: str, load: Load, tokenizer: Path, out: Path) -> list[str]:
    rate = ["--rate", str(load.rate_per_s), "--arrival", "constant"] if load.rate_per_s else ["--concurrency", str(load.concurrency)]
    dataset = [] if load.dataset is None else ["--dataset", str(load.dataset)]
    return [
        str(environment / "bin" / "python"), "-m", "orchestration.cli", "bench", "--url", url, "--model", load.model,
        "--tokenizer", str(tokenizer), "--input-tokens", str(load.input_tokens),
        "--output-tokens", str(load.output_tokens), "--requests", str(load.requests),
        "--no-calibrate", "--parquet", str(out / "requests.parquet"), "--json", str(out / "result.json"), *rate,
        *dataset, *_extra_body(load),
    ]  # fmt: skip


def _read_dyno(out: Path) -> list[Reported]:
    return [
        # what we report in an open loop runs from the schedule; the comparison is of what was sent and received
        Reported(
            f"{REQUEST_ID_PREFIX}{row['index']}.{row['turn']}",
            row["ttft_ms"] - (row["start_ms"] - row["clock_ms"]),
            tuple(row["token_gaps_ms"]),
        )
        for row in parquet.read_table(out / "requests.parquet").to_pylist()
        if row["failure"] is None
    ]


OURS = Peer("dyno", "Dyno", _dyno, _read_dyno)
PEERS: Mapping[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("vllm", "vLLM's bench serve", _vllm, _read_vllm),
        Peer("guidellm", "GuideLLM", _guidellm, _read_guidellm),
        Peer("aiperf", "AIPerf", _aiperf, _read_aiperf),
    )
}


def install(peer: Peer, environments: Path) -> Path:
    """The peer's environment, made on first use from its hashed requirements. Raises PeerError."""
    if peer is OURS:
        return ROOT / ".venv"
    environment = environments / peer.name
    requirements, marker = REQUIREMENTS / f"{peer.name}.txt", environment / "installed"
    if not marker.exists() or marker.read_bytes() != requirements.read_bytes():
        uv = ROOT / ".venv" / "bin" / "uv"
        _call([str(uv), "venv", "--quiet", "--clear", "--python", "3.11", str(environment)])
        _call([str(uv), "pip", "sync", "--quiet", "--require-hashes", "--python", str(environment / "bin" / "python"), str(requirements)])
        marker.write_bytes(requirements.read_bytes())
    return environment


def version(peer: Peer) -> str:
    """As pinned; empty for ours."""
    if peer is OURS:
        return ""
    lines = (REQUIREMENTS / f"{peer.name}.txt").read_text().splitlines()
    return next(line.split("==")[1].split()[0] for line in lines if line.startswith(f"{peer.name}=="))


def write_tokenizer(folder: Path) -> Path:
    """Our own tokenizer as transformers loads it: the peers want one."""
    folder.mkdir(parents=True, exist_ok=True)
    document = json.loads(local_tokenizer_json())
    special = [token["content"] for token in document["added_tokens"]]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": special[1],
        "eos_token": special[2],
        "unk_token": special[0],
        "pad_token": special[0],
    }
    (folder / "tokenizer.json").write_text(json.dumps(document))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": len(document["model"]["vocab"])}))
    return folder


def run(peer: Peer, environment: Path, url: str, load: Load, scratch: Path) -> tuple[list[Reported], Cost]:
    """Run a peer under a load; `scratch` has the tokenizer, and gets a folder for what it writes. Raises PeerError."""
    out = Path(tempfile.mkdtemp(dir=scratch))
    variables = {**os.environ, "PYTHONPATH": str(ROOT)} if peer is OURS else None
    with (out / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            peer.command(environment, url, load, scratch / "tokenizer", out),
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=out,
            env=variables,
            start_new_session=True,
        )
        with watched(process.pid) as cost:
            try:
                code = process.wait(RUN_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _kill_tree(process)
    if code != 0:
        words = (out / "log.txt").read_text(errors="replace")[-1500:]
        raise PeerError(f"{peer.name} at {load.name} {'took too long' if code is None else f'ended with {code}'}: {words}")
    return peer.read(out), cost()


@contextmanager
def watched(pid: int) -> Iterator[Callable[[], Cost]]:
    """Sample a process tree until the block ends; then the given function tells what it took."""
    cpu_s: dict[tuple[int, float], float] = {}
    memory_max = 0
    ended = threading.Event()

    def sample() -> None:
        nonlocal memory_max
        while not ended.wait(SAMPLE_S):
            memory = 0
            for process in _tree(pid):
                try:
                    times = process.cpu_times()
                    cpu_s[process.pid, process.create_time()] = times.user + times.system
                    memory += process.memory_info().rss
                except psutil.Error:
                    continue
            memory_max = max(memory_max, memory)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield lambda: Cost(sum(cpu_s.values()), memory_max)
    finally:
        ended.set()
        thread.join()


def _tree(pid: int) -> Sequence[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def _kill_tree(process: subprocess.Popen[Any]) -> None:
    for member in _tree(process.pid):
        try:
            member.kill()
        except psutil.Error:
            continue
    process.wait()
    time.sleep(SAMPLE_S)


def _call(arguments: list[str]) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env={**os.environ, "UV_HTTP_TIMEOUT": "600"})
    if done.returncode:
        raise PeerError(f"{' '.join(arguments[:4])} failed: {done.stderr.strip()[-1500:]}")
