"""`./dyno bench`: measure any OpenAI-compatible server with Dyno's own load client. Needs no database and no other part of Dyno."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from assets.benchmark.job import Summary
from assets.benchmark.load.client import Endpoint, Exchange
from assets.benchmark.load.closed_loop import loop_name
from assets.benchmark.load.completions import RequestRecord
from assets.benchmark.load.probe import NoAnswerError, served_models
from assets.benchmark.load.prompts import TextPrompts, TokenIdPrompts
from assets.benchmark.load.session import CalibrationError, LoadSession, nonce_of
from assets.benchmark.load.statistics import QUALITY_FLAGS, Asked, LoadStatistics, load_statistics
from orchestration import console

DEFAULT_TIMEOUT_S = 300.0
MAX_WARMUP_REQUESTS = 10
# What makes outputs equally long. OpenAI's own API does not know it; vLLM, llama.cpp, SGLang and LMDeploy do.
FIXED_LENGTH_FIELDS: Mapping[str, object] = {"ignore_eos": True}
BAR_REFRESH_S = 0.5

Prompts = TokenIdPrompts | TextPrompts


class BenchError(Exception):
    """The server cannot be measured; the message says why and what to do."""


def bench(  # noqa: PLR0917  # one parameter an option; typer passes them by name
    url: Annotated[str, typer.Option(help="Address of an OpenAI-compatible server, e.g. http://127.0.0.1:8000.")],
    model: Annotated[str, typer.Option(help="Model name as the server knows it.")],
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight at once (closed loop).")] = 1,
    requests: Annotated[int, typer.Option(min=1, help="Requests to measure. p99 needs 100 or more to mean anything.")] = 100,
    input_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each prompt.")] = 512,
    output_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each answer.")] = 128,
    tokenizer: Annotated[
        Path | None, typer.Option(help="The model's tokenizer.json: prompts of exact length. Without it the server's count sizes them.")
    ] = None,
    api_key: Annotated[str | None, typer.Option(envvar="DYNO_API_KEY", show_envvar=True, help="Key for the server.")] = None,
    timeout_s: Annotated[float, typer.Option(min=0.001, help="Longest that a request may take, in seconds.")] = DEFAULT_TIMEOUT_S,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the prompts and of the intervals.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """Measure a server: time to first token, time per output token, latency and throughput under a fixed number of concurrent requests.

    Every prompt is unique, so no prefix cache answers for the model. Definitions: docs/metrics.md.

    Example: ./dyno bench --url http://127.0.0.1:8000 --model my-model --concurrency 16 --requests 200
    """
    session = LoadSession(Endpoint.parse(url, api_key), model, timeout_s, FIXED_LENGTH_FIELDS)
    exact_prompts = TokenIdPrompts.from_file(tokenizer) if tokenizer is not None else None
    prompts, fixed_length = _prepare(session, exact_prompts, seed)

    nonce = nonce_of(model, time.time_ns())
    warmup = min(concurrency, MAX_WARMUP_REQUESTS)
    session.put(prompts.make(warmup, input_tokens, seed, nonce + 1), output_tokens, warmup, fixed_length)
    with console.progress() as bar:
        # a refreshing thread would compete with the client for the interpreter: the bar is drawn between two requests
        bar.live.auto_refresh = False
        on_done = _BarMover(bar, f"{model} at concurrency {concurrency}", requests)
        records = session.put(prompts.make(requests, input_tokens, seed, nonce), output_tokens, concurrency, fixed_length, on_done)
    statistics = load_statistics(records, Asked(concurrency, input_tokens, output_tokens if fixed_length else None), seed)

    if json:
        console.print_json(
            {
                "url": url,
                "model": model,
                "concurrency": concurrency,
                "input_tokens": input_tokens,
                "output_tokens": output_tokens,
                "fixed_output_length": fixed_length,
                **_document(statistics),
                "client": {
                    "event_loop": loop_name(),
                    "seed": seed,
                    "nonce": nonce,
                    "prompts": "token ids" if isinstance(prompts, TokenIdPrompts) else "text",
                },
            }
        )
    else:
        _print_tables(model, concurrency, statistics)
    if statistics.requests_completed == 0:
        raise BenchError(f"none of {requests} requests completed; the first failed with {_first_failure(records)}")


class _BarMover:
    """Moves the progress bar after each request, and draws it twice a second at the most."""

    def __init__(self, bar: Progress, description: str, total: int) -> None:
        self._bar = bar
        self._task = bar.add_task(description, total=total)
        self._left = total
        self._drawn_at = 0.0

    def __call__(self, _: Exchange) -> None:
        self._bar.advance(self._task)
        self._left -= 1
        if time.monotonic() - self._drawn_at >= BAR_REFRESH_S or not self._left:
            self._drawn_at = time.monotonic()
            self._bar.refresh()


def _prepare(session: LoadSession, prompts: TokenIdPrompts | None, seed: int) -> tuple[Prompts, bool]:
    """Try the server with a small request: returns what makes the prompts, and whether outputs have a fixed length. Raises BenchError."""
    try:
        return _try(session, prompts, seed), True
    except CalibrationError as error:
        if error.failure != "http_4xx":
            raise BenchError(_explain(session, error)) from error
    session.body_fields = {}
    try:
        prepared = _try(session, prompts, seed)
    except CalibrationError as error:
        raise BenchError(_explain(session, error)) from error
    console.warn("the server does not take `ignore_eos`: answers may end early, so their lengths differ")
    return prepared, False


def _try(session: LoadSession, prompts: TokenIdPrompts | None, seed: int) -> Prompts:
    if prompts is None:
        return session.calibrated_prompts(seed)
    [record] = session.put(prompts.make(1, 16, seed, nonce_of("probe", time.time_ns())), 1, 1, fixed_length=False)
    if record.failure not in {None, "empty_output"}:
        raise CalibrationError(record.detail, record.failure)
    return prompts


def _explain(session: LoadSession, error: CalibrationError) -> str:
    """The probe's failure, with the models that the server has when it refused ours."""
    if error.failure != "http_4xx":
        return str(error)
    try:
        served = served_models(session.endpoint, session.timeout_s)
    except NoAnswerError:
        return str(error)
    if served and session.model not in served:
        return f"the server does not serve {session.model!r}; it serves: {', '.join(served)}"
    return str(error)


def _document(statistics: LoadStatistics) -> dict[str, object]:
    return {
        "requests": {
            "sent": statistics.requests_sent,
            "completed": statistics.requests_completed,
            "failed": statistics.requests_failed,
        },
        "failures": statistics.failures,
        "metrics": {
            "ttft_ms": asdict(statistics.ttft_ms),
            "tpot_ms": asdict(statistics.tpot_ms),
            "itl_ms": asdict(statistics.itl_ms),
            "e2e_ms": asdict(statistics.e2e_ms),
            "requests_per_s": statistics.requests_per_s,
            "output_tokens_per_s": statistics.output_tokens_per_s,
            "total_tokens_per_s": statistics.total_tokens_per_s,
            "input_tokens_mean": statistics.input_tokens_mean,
            "output_tokens_mean": statistics.output_tokens_mean,
            "concurrency_mean": statistics.concurrency_mean,
            "duration_s": statistics.duration_s,
        },
        "intervals": statistics.intervals,
        "quality_flags": statistics.quality_flags,
    }


def _print_tables(model: str, concurrency: int, statistics: LoadStatistics) -> None:
    rows: list[Sequence[object]] = [
        _row(name, summary)
        for name, summary in (
            ("TTFT", statistics.ttft_ms),
            ("TPOT", statistics.tpot_ms),
            ("ITL", statistics.itl_ms),
            ("e2e", statistics.e2e_ms),
        )
    ]
    console.print_table(f"{model} at concurrency {concurrency}, milliseconds", ("", "mean", "p50", "p90", "p95", "p99"), rows)
    throughput: list[Sequence[object]] = [
        (
            "requests sent / completed / failed",
            f"{statistics.requests_sent} / {statistics.requests_completed} / {statistics.requests_failed}",
        ),
        *((f"  failed: {kind}", count) for kind, count in statistics.failures.items()),
        ("duration, s", round(statistics.duration_s, 2)),
        ("requests per second", round(statistics.requests_per_s, 2)),
        ("output tokens per second", round(statistics.output_tokens_per_s, 1)),
        ("total tokens per second", round(statistics.total_tokens_per_s, 1)),
        ("input / output tokens, mean", f"{_number(statistics.input_tokens_mean)} / {_number(statistics.output_tokens_mean)}"),
        ("concurrency, mean", round(statistics.concurrency_mean, 2)),
    ]
    console.print_table("Throughput", ("", "value"), throughput)
    for flag in statistics.quality_flags:
        console.warn(f"{flag}: {QUALITY_FLAGS[flag]}")


def _row(name: str, summary: Summary) -> Sequence[object]:
    values = (summary.mean, summary.p50, summary.p90, summary.p95, summary.p99)
    return (name, *(None if value is None else round(value, 2) for value in values))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _first_failure(records: Sequence[RequestRecord]) -> str:
    record = next(record for record in records if record.failure is not None)
    return f"{record.failure}: {record.detail}"
