"""How right the client is on this machine: its numbers against a server in another process that knows what it sent and when.

The machine is part of a measurement: on two busy cores the same client is wrong by more than on sixteen idle ones. So it is measured, at
the load that will be asked, and every result carries what was found.
"""

from __future__ import annotations

import heapq
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from assets.benchmark.job import Summary
from assets.benchmark.load.api_formats import COMPLETIONS, ApiFormat
from assets.benchmark.load.arrivals import ClosedLoop, OpenLoop, RateProfile, open_loop
from assets.benchmark.load.certificate import write_certificate
from assets.benchmark.load.decode import RequestRecord
from assets.benchmark.load.endpoint import Endpoint, Transport
from assets.benchmark.load.fleet import ClientReport
from assets.benchmark.load.load_loop import REQUEST_ID_PREFIX
from assets.benchmark.load.probe import get
from assets.benchmark.load.session import Live, LoadResult, LoadSession, single
from assets.benchmark.load.statistics import summarize
from assets.benchmark.load.truth_server import MODEL, Timing

_ROOT = Path(__file__).resolve().parents[3]
_TIMEOUT_S = 60.0
# A request's error may be this much, or this share of what is measured, whichever is more; beyond it the load point is `client_limited`.
ERROR_BOUND_MS = 2.0
ERROR_BOUND_SHARE = 0.02
CPU_SHARE_BOUND = 0.9
# Short answers settle fast: a calibration before a load point takes about a second and a half.
QUICK = Timing(ttft_ms=60, ttft_spread_ms=30, itl_ms=20, itl_spread_ms=5)
QUICK_TOKENS = 24
WAVES = 3
QUICK_MIN_REQUESTS = 12
OPEN_LOOP_S = 2.0
# A slower open loop is calibrated at this rate: its requests would come one by one as well, and a calibration would take a minute.
MIN_RATE_PER_S = QUICK_MIN_REQUESTS / OPEN_LOOP_S
PROMPT = "hello " * 64


@dataclass(frozen=True, slots=True)
class Calibration:
    """One load on the truth server. Errors are of single requests, absolute: |reported minus true| TTFT, in milliseconds.

    `efficiency` is the ideal over the actual time of a closed loop: what its streams would have taken had each refill been instant. In an
    open loop it is None, and `rate_error_share` says how far the rate of sends was off the schedule's.
    """

    transport: Transport
    concurrency: int | None
    rate_per_s: float | None
    requests: int
    failed: int
    ttft_error_ms: Summary
    ttft_error_steady_ms: Summary
    itl_p99_bias_ms: float
    schedule_lag_ms: Summary
    receive_lag_ms: Summary
    efficiency: float | None
    rate_error_share: float | None
    output_tokens_per_s: float
    client: ClientReport

    @property
    def arrivals_per_cpu_s(self) -> float:
        """Arrivals that a second of the client's processor time carries."""
        return self.client.arrivals / max(self.client.cpu_s, 1e-9)


@contextmanager
def truth_server(timing: Timing, transport: Transport = "tcp") -> Iterator[Endpoint]:
    """The server in a process of its own. TLS has a certificate made for the occasion, which the endpoint does not verify."""
    with tempfile.TemporaryDirectory(prefix="dyno-truth-") as folder:
        path = f"{folder}/truth"
        if transport == "tls":
            write_certificate(Path(path))
        with _server_process(timing, {"tcp": [], "tls": ["--certificate", path], "unix": ["--unix", path]}[transport]) as address:
            match transport:
                case "unix":
                    yield Endpoint.parse(f"unix:{path}")
                case "tls":
                    yield Endpoint.parse(f"https://127.0.0.1:{address}", verify=False)
                case "tcp":
                    yield Endpoint.parse(f"http://127.0.0.1:{address}")


@contextmanager
def _server_process(timing: Timing, options: Sequence[str]) -> Iterator[str]:
    """Gives what the server prints of its address."""
    arguments = [
        argument
        for name in ("ttft_ms", "ttft_spread_ms", "itl_ms", "itl_spread_ms", "seed")
        for argument in (f"--{name.replace('_', '-')}", str(getattr(timing, name)))
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "assets.benchmark.load.truth_server", *arguments, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
    )
    try:
        yield process.stdout.readline().strip() if process.stdout else ""
    finally:
        process.kill()
        process.communicate()


def true_times(endpoint: Endpoint) -> dict[int, Mapping[str, Any]]:
    """What the server did with each of our requests, by its index: `received_ns` and `token_ns`. Raises NoAnswerError."""
    requests = json.loads(get(endpoint, "/truth", _TIMEOUT_S))["requests"]
    return {int(request["id"].removeprefix(REQUEST_ID_PREFIX).partition(".")[0]): request for request in requests}


def calibrate(
    concurrency: int | None = None,
    rate_per_s: float | None = None,
    *,
    timing: Timing = QUICK,
    tokens: int = QUICK_TOKENS,
    requests: int | None = None,
    processes: int | None = None,
    api: ApiFormat = COMPLETIONS,
    transport: Transport = "tcp",
    should_stop: Callable[[], bool] = lambda: False,
    on_live: Callable[[Live], None] | None = None,
) -> Calibration:
    """Put one load on a truth server of our own and compare: a closed loop at `concurrency`, or an open one (Poisson) at `rate_per_s`.

    Raises:
        ValueError: not exactly one of the two is given.
        StoppedError: `should_stop` said so.
        LoadProcessError, NoAnswerError: the load or the server did not work.
    """
    if (concurrency is None) == (rate_per_s is None):
        raise ValueError("calibrate at a concurrency or at a rate")
    arrivals: ClosedLoop | OpenLoop
    if concurrency is not None:
        arrivals, count = ClosedLoop(concurrency), requests or max(QUICK_MIN_REQUESTS, WAVES * concurrency)
    else:
        rate = rate_per_s = max(rate_per_s or 0.0, MIN_RATE_PER_S)
        arrivals = open_loop(RateProfile.steady(rate, OPEN_LOOP_S if requests is None else requests / rate), "poisson", timing.seed)
        count = len(arrivals.due_s)
    with truth_server(timing, transport) as endpoint:
        session = LoadSession(endpoint, MODEL, _TIMEOUT_S, api, should_stop=should_stop)
        result = session.put(single([PROMPT] * count, tokens), arrivals, processes=processes, on_live=on_live)
        truth = true_times(endpoint)
    return _compare(result, truth, arrivals, rate_per_s, transport)


def _compare(
    result: LoadResult,
    truth: Mapping[int, Mapping[str, Any]],
    arrivals: ClosedLoop | OpenLoop,
    rate_per_s: float | None,
    transport: Transport,
) -> Calibration:
    records = result.records
    completed = [record for record in records if record.failure is None and record.index in truth]
    errors, gaps, true_gaps, true_e2e_s = [], [], [], []
    for record in completed:
        token_ns, received_ns = np.asarray(truth[record.index]["token_ns"]), truth[record.index]["received_ns"]
        # what the client calls TTFT runs from its own send here; how late that was is in the schedule lag
        reported_ms = (record.ttft_ms or 0.0) - (record.start_ns - record.clock_ns) / 1e6
        errors.append(abs(reported_ms - (token_ns[0] - received_ns) / 1e6))
        gaps.append(record.token_gaps_ms)
        true_gaps.append(np.diff(token_ns) / 1e6)
        true_e2e_s.append((token_ns[-1] - received_ns) / 1e9)
    first_wave = arrivals.concurrency if isinstance(arrivals, ClosedLoop) else 0
    began = min((record.start_ns for record in completed), default=0)
    took_s = (max((record.end_ns for record in completed), default=0) - began) / 1e9
    pooled, true_pooled = np.concatenate([np.empty(0), *gaps]), np.concatenate([np.empty(0), *true_gaps])
    return Calibration(
        transport=transport,
        concurrency=arrivals.concurrency if isinstance(arrivals, ClosedLoop) else None,
        rate_per_s=rate_per_s,
        requests=len(records),
        failed=len(records) - len(completed),
        ttft_error_ms=summarize(errors),
        ttft_error_steady_ms=summarize(errors[first_wave:]),
        itl_p99_bias_ms=float(np.percentile(pooled, 99) - np.percentile(true_pooled, 99)) if pooled.size else 0.0,
        schedule_lag_ms=summarize([record.lag_ms for record in completed]),
        receive_lag_ms=summarize([record.receive_lag_ms for record in completed if record.receive_lag_ms is not None]),
        efficiency=_ideal_s(true_e2e_s, arrivals.concurrency) / took_s if isinstance(arrivals, ClosedLoop) and took_s > 0 else None,
        rate_error_share=_rate_error(completed, arrivals) if isinstance(arrivals, OpenLoop) else None,
        output_tokens_per_s=sum(record.output_tokens or 0 for record in completed) / max(took_s, 1e-9),
        client=result.client,
    )


def _ideal_s(e2e_s: Sequence[float], concurrency: int) -> float:
    """How long the streams would have taken with refills that cost nothing: requests in order, each to the stream that is free first."""
    free_at = [0.0] * concurrency
    for seconds in e2e_s:
        heapq.heapreplace(free_at, free_at[0] + seconds)
    return max(free_at)


def _rate_error(completed: Sequence[RequestRecord], arrivals: OpenLoop) -> float:
    starts = [record.start_ns for record in completed]
    span_s, due_span_s = (max(starts) - min(starts)) / 1e9, arrivals.due_s[-1] - arrivals.due_s[0]
    return abs(due_span_s / span_s - 1) if span_s > 0 and len(starts) == len(arrivals.due_s) else 1.0


def client_verdict(
    calibration: Calibration | None,
    schedule_lag_ms: Summary,
    cpu_share_max: float,
    *,
    ttft_p50_ms: float | None,
    e2e_p50_ms: float | None,
    scheduled: bool,
) -> tuple[str, ...]:
    """Why the client limited a load point, in sentences; empty when it did not. The bounds are the constants of this module.

    `scheduled`: latencies run from a schedule's instants, so that lag is part of TTFT. In a closed loop it makes the load smaller.
    """
    reasons: list[str] = []
    error_bound_ms = max(ERROR_BOUND_MS, ERROR_BOUND_SHARE * (ttft_p50_ms or 0.0))
    lag_bound_ms = error_bound_ms if scheduled else max(ERROR_BOUND_MS, ERROR_BOUND_SHARE * (e2e_p50_ms or 0.0))
    error = calibration.ttft_error_ms.p99 if calibration is not None else None
    if error is not None and error > error_bound_ms:
        reasons.append(f"calibrated TTFT error p99 {error:.2f} ms is over {error_bound_ms:.2f} ms")
    if calibration is not None and calibration.failed:
        reasons.append(f"{calibration.failed} of {calibration.requests} calibration requests failed")
    if schedule_lag_ms.p99 is not None and schedule_lag_ms.p99 > lag_bound_ms:
        reasons.append(f"requests went out late: p99 {schedule_lag_ms.p99:.2f} ms is over {lag_bound_ms:.2f} ms")
    if cpu_share_max > CPU_SHARE_BOUND:
        reasons.append(f"a load process was busy for {cpu_share_max:.0%} of half a second")
    return tuple(reasons)
