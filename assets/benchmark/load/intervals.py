"""Intervals of what a load point shows, by a block bootstrap over its requests.

Requests that ran side by side slowed one another, so they are not independent, and resampling them one by one would make the intervals
too narrow. Whole blocks of neighbours are resampled instead: the circular block bootstrap (Politis and Romano 1992, "A circular
block-resampling procedure for stationary data"), with blocks of n^(1/3) requests (Hall, Horowitz and Jing 1995), or of as many as ran at
once, up to a tenth of the sample.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

RESAMPLES = 1000
# What fewer requests show is not enough to be resampled: the interval would be far too narrow.
MIN_FOR_INTERVALS = 10
CONFIDENCE = 0.95
PERCENTILES = (50, 90, 95, 99)
# Gaps are many; they are binned between this many of their own quantiles before they are resampled.
_GAP_BINS = 2048
# Of more requests than these, neighbours are put together and resampled as one: memory and time are those of so many groups.
MAX_GROUPS = 1000
# An open loop's throughput is resampled over so many equal parts of its window.
TIME_BINS = 100

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Interval = tuple[float, float]


def block_length(size: int, concurrency: float) -> int:
    """Requests a block."""
    together = min(math.ceil(concurrency), size // 10)
    return max(1, min(size, max(math.ceil(math.cbrt(size)), together)))


def resample(size: int, block: int, seed: int, resamples: int = RESAMPLES) -> Indices:
    """Indices (resamples x size): blocks of neighbours from a circle of `size` requests."""
    random = np.random.default_rng(seed)
    starts = random.integers(0, size, size=(resamples, -(-size // block)))
    rows = (starts[:, :, None] + np.arange(block)) % size
    return rows.reshape(resamples, -1)[:, :size].astype(np.intp)


def interval(estimates: Floats) -> Interval:
    """The percentile interval of resampled estimates."""
    tail = (1 - CONFIDENCE) / 2 * 100
    low, high = np.percentile(estimates, (tail, 100 - tail))
    return float(low), float(high)


def latency_intervals(values: Floats, concurrency: float, seed: int) -> dict[str, Interval]:
    """Intervals of mean and percentiles of one value a request; keys `mean`, `p50`, ... Empty for fewer than MIN_FOR_INTERVALS."""
    if values.size < MIN_FOR_INTERVALS:
        return {}
    if values.size > MAX_GROUPS:
        return gap_intervals(list(values[:, None]), concurrency, seed)
    return summary_intervals(values, resample(values.size, block_length(values.size, concurrency), seed))


def throughput_interval(starts_s: Floats, ends_s: Floats, tokens: Floats, window_s: float, seed: int) -> Interval | None:
    """The interval of tokens per second over a window from 0 to `window_s`, by a block bootstrap over the parts of the window.

    Each request's tokens are spread evenly from its first to its last. None for a window in which nothing came.
    """
    edges = np.linspace(0.0, window_s, TIME_BINS + 1)
    lengths = np.maximum(ends_s - starts_s, 1e-9)
    # how much of each request had come by each edge
    came = np.asarray([float((tokens * np.clip((edge - starts_s) / lengths, 0.0, 1.0)).sum()) for edge in edges])
    per_bin = np.diff(came)
    if not per_bin.any():
        return None
    # what came side by side came together: blocks as long as a request
    block = min(TIME_BINS // 5, max(1, round(float(lengths.mean()) / window_s * TIME_BINS)))
    return interval(per_bin[resample(TIME_BINS, block, seed)].sum(axis=1) / window_s)


def summary_intervals(values: Floats, rows: Indices) -> dict[str, Interval]:
    """Intervals of mean and percentiles of one value a request; keys `mean`, `p50`, ..."""
    resampled = values[rows]
    found = {"mean": interval(resampled.mean(axis=1))}
    for percentile, estimates in zip(PERCENTILES, np.percentile(resampled, PERCENTILES, axis=1), strict=True):
        found[f"p{percentile}"] = interval(estimates)
    return found


def gap_intervals(gaps: list[Floats], concurrency: float, seed: int) -> dict[str, Interval]:
    """Intervals of mean and percentiles of the pooled gaps, where requests with all their gaps are resampled. Empty for too few."""
    pooled = np.concatenate(gaps) if gaps else np.empty(0)
    if pooled.size < MIN_FOR_INTERVALS or len(gaps) < MIN_FOR_INTERVALS:
        return {}
    block = block_length(len(gaps), concurrency)
    if len(gaps) > MAX_GROUPS:
        together = -(-len(gaps) // MAX_GROUPS)
        gaps = [np.concatenate(gaps[start : start + together]) for start in range(0, len(gaps), together)]
        block = max(1, round(block / together))
    rows = resample(len(gaps), block, seed)
    edges = np.unique(np.quantile(pooled, np.linspace(0, 1, _GAP_BINS)))
    counts = np.stack([np.bincount(np.searchsorted(edges, gap), minlength=len(edges)) for gap in gaps]).astype(np.float64)
    sums = np.asarray([float(gap.sum()) for gap in gaps])
    weights = np.zeros((len(rows), len(gaps)))
    np.add.at(weights, (np.arange(len(rows))[:, None], rows), 1.0)
    per_bin = weights @ counts
    totals = per_bin.sum(axis=1)
    cumulative = np.cumsum(per_bin, axis=1)
    found = {"mean": interval((weights @ sums) / np.maximum(totals, 1))}
    for percentile in PERCENTILES:
        wanted = totals * percentile / 100
        positions = (cumulative < wanted[:, None]).sum(axis=1)
        found[f"p{percentile}"] = interval(edges[np.minimum(positions, len(edges) - 1)])
    return found
