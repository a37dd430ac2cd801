"""`./dyno calibrate`: how right the load generator is on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from assets.benchmark.host import host_facts
from assets.benchmark.load.calibration import Calibration
from assets.benchmark.load.calibration import calibrate as calibrate_client
from assets.benchmark.load.endpoint import Transport
from assets.benchmark.load.session import Live
from assets.benchmark.load.truth_server import Timing
from orchestration import console

CONCURRENCIES = (1, 16, 64, 256, 1024)
RATES_PER_S = (50.0, 200.0, 500.0)
TOKENS = 64
WAVES = 4
MIN_REQUESTS = 12
OPEN_LOOP_S = 4.0
STANDARD_OUTPUT = "-"


def calibrate(
    concurrency: Annotated[list[int] | None, typer.Option(min=1, help="Streams of a closed loop; may be given several times.")] = None,
    rate: Annotated[list[float] | None, typer.Option(min=0.1, help="Requests per second of an open loop; several times too.")] = None,
    transport: Annotated[Transport, typer.Option(help="What carries the bytes.")] = "tcp",
    json: Annotated[
        str | None, typer.Option("--json", metavar="[FILE]", help="Write the result as one JSON document: to FILE, or to standard output.")
    ] = None,
) -> None:
    """Measure a server of our own that knows what it sent and when, and show what the load generator makes of it on this machine.

    The server runs in a process beside it: first token after 200 +- 100 ms, then 64 tokens 20 +- 5 ms apart. Errors are reported minus
    true, request by request. `./dyno bench` and every benchmark do the same, shorter, before they measure; beyond a bound a result is
    marked `client_limited`.

    Example: ./dyno calibrate --concurrency 64 --concurrency 1024
    """
    measure = partial(calibrate_client, timing=Timing(), tokens=TOKENS, transport=transport)
    chosen = concurrency is not None or rate is not None
    results: list[Calibration] = []
    with console.progress() as bar:
        for streams in concurrency or ([] if chosen else CONCURRENCIES):
            requests = max(MIN_REQUESTS, WAVES * streams)
            on_live = _bar_mover(bar, f"concurrency {streams}")
            results.append(measure(streams, requests=requests, on_live=on_live))
        for rate_per_s in rate or ([] if chosen else RATES_PER_S):
            requests = max(MIN_REQUESTS, round(rate_per_s * OPEN_LOOP_S))
            on_live = _bar_mover(bar, f"{rate_per_s:g} req/s")
            results.append(measure(rate_per_s=rate_per_s, requests=requests, on_live=on_live))
    document = {
        "host": host_facts(),
        "calibrations": [{**asdict(result), "arrivals_per_cpu_s": result.arrivals_per_cpu_s} for result in results],
    }
    if json == STANDARD_OUTPUT:
        console.print_json(document)
        return
    if json is not None:
        console.write_json(Path(json), document)
    columns = (
        "load", "requests", "TTFT error mean", "p99", "steady p99", "ITL p99 bias", "schedule lag p99", "receive lag p99",
        "efficiency", "rate error", "tokens/s", "arrivals per CPU-s",
    )  # fmt: skip
    console.print_table("Errors and lags in milliseconds", columns, [_row(result) for result in results])


def _bar_mover(bar: Progress, title: str) -> Callable[[Live], None]:
    task = bar.add_task(title, total=None)

    def on_live(live: Live) -> None:
        bar.update(task, total=live.total, completed=live.done)

    return on_live


def _row(result: Calibration) -> tuple[object, ...]:
    return (
        f"{result.rate_per_s:g} req/s" if result.concurrency is None else f"{result.concurrency} streams",
        result.requests,
        _rounded(result.ttft_error_ms.mean),
        _rounded(result.ttft_error_ms.p99),
        _rounded(result.ttft_error_steady_ms.p99),
        _rounded(result.itl_p99_bias_ms),
        _rounded(result.schedule_lag_ms.p99),
        _rounded(result.receive_lag_ms.p99),
        _rounded(result.efficiency, 4),
        None if result.rate_error_share is None else f"{result.rate_error_share:.3%}",
        round(result.output_tokens_per_s),
        round(result.arrivals_per_cpu_s),
    )


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)
