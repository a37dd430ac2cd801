"""From request records to the numbers of a load point. Definitions: docs/metrics.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from assets.benchmark.job import Summary
from assets.benchmark.load.completions import RequestRecord

# Linear interpolation between order statistics: type 7 of Hyndman & Fan (1996).
PERCENTILE_METHOD: Literal["linear"] = "linear"
BOOTSTRAP_RESAMPLES = 1000
CONFIDENCE = 0.95
# A load point is flagged when it is off its own accounting by more than this share.
TOLERANCE = 0.05
REQUESTS_FOR_A_P99 = 100

# What a reader should know before trusting a load point's numbers.
QUALITY_FLAGS: Mapping[str, str] = {
    "request_failures": "some requests failed; latencies are of the completed ones",
    "few_requests": f"fewer than {REQUESTS_FOR_A_P99} requests completed: p99 is hardly more than the maximum",
    "concurrency_off_target": "by Little's law the mean number in flight, ramp and tail included, is over 5 % off what was asked",
    "usage_missing": "the server reported no usage: chunks were counted as tokens",
    "input_tokens_off_target": "a prompt was over 5 % off the asked length, by the server's count",
    "output_tokens_off_target": "an output was not of the asked length, by the server's count",
    "multi_token_chunks": "some chunks carried several tokens: ITL is of chunks, TPOT low by at most the first chunk's share",
    "more_chunks_than_tokens": "more chunks than tokens came: ITL is of chunks",
}

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a load point was meant to be; None where nothing was promised."""

    concurrency: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class LoadStatistics:
    """What one load point showed. `duration_s` runs from the first send to the last token (or the last failure)."""

    duration_s: float
    requests_sent: int
    requests_completed: int
    requests_failed: int
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
    intervals: Mapping[str, tuple[float, float]]
    quality_flags: tuple[str, ...]


def summarize(values: Sequence[float] | Floats) -> Summary:
    """Mean and percentiles; all None for no values."""
    if len(values) == 0:
        return Summary(None, None, None, None, None)
    array = np.asarray(values, dtype=np.float64)
    p50, p90, p95, p99 = (float(p) for p in np.percentile(array, (50, 90, 95, 99), method=PERCENTILE_METHOD))
    return Summary(float(array.mean()), p50, p90, p95, p99)


def load_statistics(records: Sequence[RequestRecord], asked: Asked, seed: int = 0) -> LoadStatistics:
    """Summarize a load point; `seed` makes its intervals reproducible.

    Raises:
        ValueError: there are no records.
    """
    if not records:
        raise ValueError("a load point without requests has no statistics")
    completed = [record for record in records if record.failure is None]
    failures = Counter(record.failure for record in records if record.failure is not None)
    duration_s = max((max(r.end_ns for r in records) - min(r.start_ns for r in records)) / 1e9, 1e-9)

    e2e = _values(completed, "e2e_ms")
    gaps = np.asarray([gap for record in completed for gap in record.token_gaps_ms], dtype=np.float64)
    tokens_in = _values(completed, "input_tokens")
    tokens_out = _values(completed, "output_tokens")
    concurrency_mean = float(e2e.sum()) / 1e3 / duration_s
    return LoadStatistics(
        duration_s=duration_s,
        requests_sent=len(records),
        requests_completed=len(completed),
        requests_failed=len(records) - len(completed),
        failures=dict(sorted(failures.items())),
        ttft_ms=summarize(_values(completed, "ttft_ms")),
        tpot_ms=summarize(_values(completed, "tpot_ms")),
        itl_ms=summarize(gaps),
        e2e_ms=summarize(e2e),
        requests_per_s=len(completed) / duration_s,
        output_tokens_per_s=float(tokens_out.sum()) / duration_s,
        total_tokens_per_s=float(tokens_in.sum() + tokens_out.sum()) / duration_s,
        input_tokens_mean=float(tokens_in.mean()) if tokens_in.size else None,
        output_tokens_mean=float(tokens_out.mean()) if tokens_out.size else None,
        concurrency_mean=concurrency_mean,
        intervals=_intervals(completed, concurrency_mean, seed),
        quality_flags=_flags(records, concurrency_mean, asked),
    )


def bootstrap_interval(statistic: Callable[[Indices], Floats], size: int, seed: int) -> tuple[float, float]:
    """Percentile bootstrap (Efron 1979) over `size` requests: `statistic` takes resampled indices (resamples x size)."""
    random = np.random.default_rng(seed)
    estimates = statistic(random.integers(0, size, size=(BOOTSTRAP_RESAMPLES, size)).astype(np.intp))
    tail = (1 - CONFIDENCE) / 2 * 100
    low, high = np.percentile(estimates, (tail, 100 - tail), method=PERCENTILE_METHOD)
    return float(low), float(high)


def _values(records: Sequence[RequestRecord], name: str) -> Floats:
    return np.asarray([value for record in records if (value := getattr(record, name)) is not None], dtype=np.float64)


def _intervals(completed: Sequence[RequestRecord], concurrency_mean: float, seed: int) -> dict[str, tuple[float, float]]:
    """95 % intervals of what decides a ranking.

    Requests are resampled as if they were independent; those that ran side by side are not quite, so the intervals are a lower bound of
    the uncertainty. Throughput is resampled as concurrency x tokens / latency (Little's law), which holds the concurrency as it was.
    """
    intervals: dict[str, tuple[float, float]] = {}
    for name in ("ttft", "tpot", "e2e"):
        values = _values(completed, f"{name}_ms")
        if values.size > 1:
            intervals[f"{name}_p90_ms"] = bootstrap_interval(partial(_p90_of_each, values), values.size, seed)
    e2e_s, tokens_out = _values(completed, "e2e_ms") / 1e3, _values(completed, "output_tokens")
    if e2e_s.size > 1 and e2e_s.size == tokens_out.size:
        intervals["output_tokens_per_s"] = bootstrap_interval(
            lambda rows: concurrency_mean * tokens_out[rows].sum(axis=1) / e2e_s[rows].sum(axis=1), e2e_s.size, seed
        )
    return intervals


def _p90_of_each(values: Floats, rows: Indices) -> Floats:
    return np.percentile(values[rows], 90, axis=1, method=PERCENTILE_METHOD)


def _flags(records: Sequence[RequestRecord], concurrency_mean: float, asked: Asked) -> tuple[str, ...]:
    """Those of QUALITY_FLAGS that hold."""
    completed = [record for record in records if record.failure is None]
    counted = [record for record in completed if record.usage_reported]

    def off_target(value: float | None, target: int | None) -> bool:
        return value is not None and target is not None and abs(value - target) > TOLERANCE * target

    off = {
        "request_failures": len(completed) < len(records),
        "few_requests": len(completed) < REQUESTS_FOR_A_P99,
        "concurrency_off_target": off_target(concurrency_mean, asked.concurrency),
        "usage_missing": len(counted) < len(completed),
        "input_tokens_off_target": any(off_target(record.input_tokens, asked.input_tokens) for record in completed),
        "output_tokens_off_target": asked.output_tokens is not None
        and any(record.output_tokens != asked.output_tokens for record in completed),
        "multi_token_chunks": any((record.output_tokens or 0) > record.chunks for record in counted),
        "more_chunks_than_tokens": any((record.output_tokens or 0) < record.chunks for record in counted),
    }
    return tuple(name for name in QUALITY_FLAGS if off[name])
