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
CONFIDENCE = 0.95
PERCENTILES = (50, 90, 95, 99)
# Gaps are many; they are binned between this many of their own quantiles before they are resampled.
_GAP_BINS = 2048

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


def summary_intervals(values: Floats, rows: Indices) -> dict[str, Interval]:
    """Intervals of mean and percentiles of one value a request; keys `mean`, `p50`, ..."""
    resampled = values[rows]
    found = {"mean": interval(resampled.mean(axis=1))}
    for percentile, estimates in zip(PERCENTILES, np.percentile(resampled, PERCENTILES, axis=1), strict=True):
        found[f"p{percentile}"] = interval(estimates)
    return found


def gap_intervals(gaps: list[Floats], rows: Indices) -> dict[str, Interval]:
    """Intervals of mean and percentiles of the pooled gaps, where requests with all their gaps are resampled. Empty without gaps."""
    pooled = np.concatenate(gaps) if gaps else np.empty(0)
    if pooled.size < 2:
        return {}
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
