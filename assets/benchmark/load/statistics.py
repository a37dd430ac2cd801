"""From request records to the numbers of a load point. Definitions: docs/metrics.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from assets.benchmark.job import Summary
from assets.benchmark.load.decode import RequestRecord
from assets.benchmark.load.intervals import MIN_FOR_INTERVALS, Interval, gap_intervals, latency_intervals, throughput_interval
from assets.benchmark.load.steady_state import Window, find_window

# Linear interpolation between order statistics: type 7 of Hyndman & Fan (1996).
PERCENTILE_METHOD: Literal["linear"] = "linear"
# A load point is flagged when it is off its own accounting by more than this share.
TOLERANCE = 0.05
REQUESTS_FOR_A_P99 = 100
PER_REQUEST = ("ttft_ms", "tpot_ms", "e2e_ms")

# What a reader should know before trusting a load point's numbers.
QUALITY_FLAGS: Mapping[str, str] = {
    "request_failures": "some requests failed; latencies are of the completed ones",
    "few_requests": f"fewer than {REQUESTS_FOR_A_P99} requests completed: p99 is hardly more than the maximum",
    "no_steady_state": "latencies kept drifting: the numbers are of the whole load point, warm-up and all",
    "no_steady_window": "too few requests for a steady window: the first wave, which starts all at once, and the drain are in the numbers",
    "concurrency_off_target": "the mean number in flight was over 5 % off what was asked",
    "littles_law_off": "requests in flight and throughput x latency differ by over 5 %: the accounting is not to be trusted",
    "usage_missing": "the server reported no usage: chunks were counted as tokens",
    "token_counts_disagree": "usage and the model's own tokenizer differ by over 5 % on an output, as they do on what random weights write",
    "input_tokens_off_target": "a prompt was over 5 % off the asked length, by the server's count",
    "output_tokens_off_target": "an output was not of the asked length, by the server's count",
    "multi_token_chunks": "some chunks carried several tokens: ITL is of chunks, TPOT low by at most the first chunk's share",
    "more_chunks_than_tokens": "more chunks than tokens came: ITL is of chunks",
    "prefix_cache_hits": "the engine answered part of the prompts from its prefix cache: prefill was not measured in full",
    "preemptions": "the engine preempted requests: its KV cache was too small for the load",
    "client_limited": "the load generator was too slow on its machine for this load: the numbers are partly its own",
}

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a load point was meant to be; None where nothing was promised. `scheduled_s` is how long an open loop's schedule lasts."""

    concurrency: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    scheduled_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LoadStatistics:
    """What one load point showed: counts of all its requests, and the numbers of its window.

    `concurrency_mean` is the mean number in flight, from the requests' own times. `intervals` are at 95 %, by names like `ttft_p90_ms`.
    """

    window: Window
    duration_s: float
    requests_sent: int
    requests_completed: int
    requests_failed: int
    requests_counted: int
    failures: Mapping[str, int]
    ttft_ms: Summary
    tpot_ms: Summary
    itl_ms: Summary
    e2e_ms: Summary
    requests_per_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    input_tokens_mean: float | None
    output_tokens_mean: float | None
    concurrency_mean: float
    schedule_lag_ms: Summary
    receive_lag_ms: Summary
    intervals: Mapping[str, Interval]
    quality_flags: tuple[str, ...]


def summarize(values: Sequence[float] | Floats) -> Summary:
    """Mean and percentiles; all None for no values."""
    if len(values) == 0:
        return Summary(None, None, None, None, None)
    array = np.asarray(values, dtype=np.float64)
    p50, p90, p95, p99 = (float(p) for p in np.percentile(array, (50, 90, 95, 99), method=PERCENTILE_METHOD))
    return Summary(float(array.mean()), p50, p90, p95, p99)


def load_statistics(records: Sequence[RequestRecord], asked: Asked, seed: int = 0) -> LoadStatistics:
    """Summarize a load point from its records in the order of their starts; `seed` makes its intervals reproducible.

    Raises:
        ValueError: there are no records.
    """
    if not records:
        raise ValueError("a load point without requests has no statistics")
    window = find_window(records, asked.scheduled_s)
    completed = [record for record in records if record.failure is None]
    counted = [record for record in completed if record.start_ns >= window.start_ns]
    rates = _rates(completed, window)
    gaps = [np.asarray(record.token_gaps_ms, dtype=np.float64) for record in counted]
    concurrency_mean = _in_flight(completed, window)
    return LoadStatistics(
        window=window,
        duration_s=window.duration_s,
        requests_sent=len(records),
        requests_completed=len(completed),
        requests_failed=len(records) - len(completed),
        requests_counted=len(counted),
        failures=dict(sorted(Counter(record.failure for record in records if record.failure is not None).items())),
        ttft_ms=summarize(_values(counted, "ttft_ms")),
        tpot_ms=summarize(_values(counted, "tpot_ms")),
        itl_ms=summarize(np.concatenate(gaps) if gaps else []),
        e2e_ms=summarize(_values(counted, "e2e_ms")),
        requests_per_s=rates.requests,
        output_tokens_per_s=rates.output_tokens,
        total_tokens_per_s=rates.output_tokens + rates.input_tokens,
        input_tokens_mean=_mean(_values(counted, "input_tokens")),
        output_tokens_mean=_mean(_values(counted, "output_tokens")),
        concurrency_mean=concurrency_mean,
        schedule_lag_ms=summarize([record.lag_ms for record in records]),
        receive_lag_ms=summarize(_values(records, "receive_lag_ms")),
        intervals={**_intervals(counted, gaps, concurrency_mean, seed), **_throughput_interval(completed, window, seed)},
        quality_flags=_flags(records, asked, concurrency_mean, _by_littles_law(counted, rates, window), window),
    )


@dataclass(frozen=True, slots=True)
class _Rates:
    """Per second of the window. `ended` counts the requests that ended in it; the others count each by its share that lies in it."""

    requests: float
    ended: float
    output_tokens: float
    input_tokens: float


def _rates(completed: Sequence[RequestRecord], window: Window) -> _Rates:
    """Throughput. A request at the window's edge counts in part, its output tokens by when they came: whole ones would miss half a wave."""
    requests = input_tokens = output_tokens = 0.0
    ended = 0
    for record in completed:
        if record.ttft_ms is None:
            continue
        ended += window.start_ns <= record.end_ns <= window.end_ns
        share = share_in_window(record, window)
        token_share = 1.0
        if share < 1:
            arrivals_ms = record.ttft_ms + np.concatenate(([0.0], np.cumsum(record.token_gaps_ms)))
            arrivals_ns = record.clock_ns + arrivals_ms * 1e6
            token_share = float(((arrivals_ns >= window.start_ns) & (arrivals_ns <= window.end_ns)).mean())
        requests += share
        input_tokens += share * (record.input_tokens or 0)
        output_tokens += token_share * (record.output_tokens or 0)
    seconds = window.duration_s
    return _Rates(requests / seconds, ended / seconds, output_tokens / seconds, input_tokens / seconds)


def share_in_window(record: RequestRecord, window: Window) -> float:
    """How much of a request's time lies in the window, 0 to 1."""
    return _overlap_ns(record, window) / max(record.end_ns - record.clock_ns, 1)


def _overlap_ns(record: RequestRecord, window: Window) -> int:
    return max(0, min(record.end_ns, window.end_ns) - max(record.clock_ns, window.start_ns))


def _in_flight(completed: Sequence[RequestRecord], window: Window) -> float:
    """Mean number of completed requests in flight, from their own times."""
    return sum(_overlap_ns(record, window) for record in completed) / 1e9 / window.duration_s


def _values(records: Sequence[RequestRecord], name: str) -> Floats:
    return np.asarray([value for record in records if (value := getattr(record, name)) is not None], dtype=np.float64)


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if values.size else None


def _intervals(counted: Sequence[RequestRecord], gaps: list[Floats], concurrency: float, seed: int) -> dict[str, Interval]:
    """95 % intervals of every latency."""
    intervals: dict[str, Interval] = {}
    for name in PER_REQUEST:
        _name_all(intervals, name, latency_intervals(_values(counted, name), concurrency, seed))
    _name_all(intervals, "itl_ms", gap_intervals(gaps, concurrency, seed))
    return intervals


def _throughput_interval(completed: Sequence[RequestRecord], window: Window, seed: int) -> dict[str, Interval]:
    timed = [record for record in completed if record.ttft_ms is not None and record.output_tokens is not None]
    if len(timed) < MIN_FOR_INTERVALS:
        return {}
    first_s = np.asarray([(record.clock_ns - window.start_ns) / 1e9 + (record.ttft_ms or 0.0) / 1e3 for record in timed])
    last_s = np.asarray([(record.end_ns - window.start_ns) / 1e9 for record in timed])
    tokens = np.asarray([record.output_tokens or 0 for record in timed], dtype=np.float64)
    found = throughput_interval(first_s, last_s, tokens, window.duration_s, seed)
    return {} if found is None else {"output_tokens_per_s": found}


def _name_all(intervals: dict[str, Interval], metric: str, found: Mapping[str, Interval]) -> None:
    base = metric.removesuffix("_ms")
    intervals.update({f"{base}_{statistic}_ms": bounds for statistic, bounds in found.items()})


def _by_littles_law(counted: Sequence[RequestRecord], rates: _Rates, window: Window) -> float | None:
    """Requests in flight as ends per second x latency; None for a load point so short that its edges would be over half the tolerance."""
    if window.kind != "steady":
        return None
    latency_s = float(_values(counted, "e2e_ms").mean()) / 1e3
    return rates.ended * latency_s if window.duration_s * TOLERANCE > latency_s else None


def _flags(
    records: Sequence[RequestRecord], asked: Asked, concurrency_mean: float, by_littles_law: float | None, window: Window
) -> tuple[str, ...]:
    """Those of QUALITY_FLAGS that the records show."""
    completed = [record for record in records if record.failure is None]
    reported = [record for record in completed if record.usage_reported]
    tokenized = [record for record in completed if record.tokenizer_tokens is not None]

    def off_target(value: float | None, target: float | None) -> bool:
        return value is not None and target is not None and abs(value - target) > TOLERANCE * target

    off = {
        "request_failures": len(completed) < len(records),
        "few_requests": len(completed) < REQUESTS_FOR_A_P99,
        "no_steady_state": window.kind == "unsettled",
        # a single stream has neither a first wave nor a drain
        "no_steady_window": window.kind == "whole" and asked.concurrency != 1,
        "concurrency_off_target": off_target(concurrency_mean, asked.concurrency),
        "littles_law_off": len(completed) == len(records) and off_target(by_littles_law, concurrency_mean),
        "usage_missing": len(reported) < len(completed),
        "token_counts_disagree": any(off_target(record.tokenizer_tokens, record.output_tokens) for record in tokenized),
        "input_tokens_off_target": any(off_target(record.input_tokens, asked.input_tokens) for record in completed),
        "output_tokens_off_target": asked.output_tokens is not None
        and any(record.output_tokens != asked.output_tokens for record in completed),
        "multi_token_chunks": any((record.output_tokens or 0) > record.chunks for record in reported),
        "more_chunks_than_tokens": any((record.output_tokens or 0) < record.chunks for record in reported),
    }
    return tuple(name for name in QUALITY_FLAGS if off.get(name, False))
