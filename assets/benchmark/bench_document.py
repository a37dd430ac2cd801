"""The document of a bench run, part by part: docs/bench.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean, stdev
from typing import Any

from assets.benchmark.bench_load import Load
from assets.benchmark.load.arrivals import Arrivals, ClosedLoop
from assets.benchmark.load.statistics import LoadStatistics


def profile_text(points: Sequence[Sequence[float]]) -> str:
    """An open loop's rate for a person: `20 req/s`, `5 to 50 req/s`, `5, 10, 20 req/s`."""
    rates = [f"{rate:.4g}" for _, rate in points]
    steps = [rate for rate, after in zip(rates, [*rates[1:], ""], strict=True) if rate != after]
    return f"{(', ' if len(points) > 2 else ' to ').join(steps)} req/s"


def load_document(load: Load, arrivals: Arrivals) -> dict[str, Any]:
    """How the load was put."""
    mode = "closed" if isinstance(arrivals, ClosedLoop) else "trace" if load.profile is None else "open"
    return {
        "mode": mode,
        "concurrency": arrivals.concurrency if isinstance(arrivals, ClosedLoop) else None,
        "ramp_s": load.ramp_s,
        "rate_per_s": load.rate_per_s,
        "arrival": load.arrival if mode == "open" else None,
        "burstiness": load.burstiness if mode == "open" and load.arrival == "gamma" else None,
        "profile": None if load.profile is None else load.profile.points,
        "requests": load.requests if isinstance(arrivals, ClosedLoop) else len(arrivals.due_s),
        "duration_s": load.duration_s,
    }


def statistics_document(statistics: LoadStatistics) -> dict[str, Any]:
    """The numbers of a load point."""
    return {
        "requests": {
            "sent": statistics.requests_sent,
            "completed": statistics.requests_completed,
            "failed": statistics.requests_failed,
        },
        "failures": dict(statistics.failures),
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
        "window": {
            "kind": statistics.window.kind,
            "duration_s": statistics.window.duration_s,
            "requests": statistics.requests_counted,
        },
        "intervals": {name: list(bounds) for name, bounds in statistics.intervals.items()},
    }


def between_runs(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean, standard deviation and 95 % interval (Student's t) over repeated runs, for each number of their metrics.

    Of runs in which something completed; empty for fewer than two of them.
    """
    documents = [document for document in documents if document["requests"]["completed"]]
    if len(documents) < 2:
        return {}
    from scipy.stats import t as student_t  # noqa: PLC0415  # half a second, for repeated runs only

    flat = [_flatten(document["metrics"]) for document in documents]
    found: dict[str, Any] = {}
    for name in flat[0]:
        values = [value for numbers in flat if (value := numbers.get(name)) is not None]
        if len(values) > 1:
            mean, deviation = fmean(values), stdev(values)
            half = float(student_t.ppf(0.975, len(values) - 1)) * deviation / math.sqrt(len(values))
            found[name] = {"runs": len(values), "mean": mean, "sd": deviation, "interval": [mean - half, mean + half]}
    return found


def _flatten(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    flat: dict[str, float | None] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}.{statistic}": number for statistic, number in value.items()})
        else:
            flat[name] = value
    return flat
