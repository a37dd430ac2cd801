"""Operating points: which load point a deployment can be run at under bounds on latency and quality, and what it costs there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from assets.rankings.response import Headroom
from assets.rankings.rows import LoadPointRow

MIN_ACCURACY = "min_accuracy"

# Upper bounds of the request (field of Sla) and the column that each one bounds.
UPPER_BOUNDS: Mapping[str, str] = {
    "ttft_p50_ms": "ttft_p50_ms",
    "ttft_p90_ms": "ttft_p90_ms",
    "ttft_p99_ms": "ttft_p99_ms",
    "tpot_p50_ms": "tpot_p50_ms",
    "tpot_p90_ms": "tpot_p90_ms",
    "tpot_p99_ms": "tpot_p99_ms",
    "itl_p90_ms": "itl_p90_ms",
    "latency_p50_ms": "e2e_p50_ms",
    "latency_p90_ms": "e2e_p90_ms",
    "latency_p99_ms": "e2e_p99_ms",
}

# replicas = ceil(rps / rps per replica) must not go up by one because a quotient that is whole came out a hair above it
_QUOTIENT_TOLERANCE = 1e-9


def bounded_value(row: LoadPointRow, bound: str) -> float | None:
    """The value that `bound` is about, in the bound's unit; None where it was not measured. Raises KeyError for an unknown bound."""
    value: float | None = row.accuracy if bound == MIN_ACCURACY else getattr(row, UPPER_BOUNDS[bound])
    return value


def within(bound: str, limit: float, value: float | None) -> bool:
    """Whether a value meets a bound. An unknown value does not."""
    if value is None:
        return False
    return value >= limit if bound == MIN_ACCURACY else value <= limit


def meets(row: LoadPointRow, bounds: Mapping[str, float]) -> bool:
    """Whether a load point meets all bounds."""
    return all(within(bound, limit, bounded_value(row, bound)) for bound, limit in bounds.items())


def operating_point(rows: Iterable[LoadPointRow], bounds: Mapping[str, float], rps: float | None = None) -> LoadPointRow | None:
    """The load point within the bounds to run a deployment at; None when none is.

    For a load of `rps`: the one that needs the fewest replicas, and of those the one of the lowest 90th percentile of the end-to-end
    latency, for a load that one replica carries at ease needs not be run at its limit. Without a load: the one that serves the most
    requests per second, ties going to the lower latency, as in `dbt_project/models/marts/operating_points.sql`. Then the lower
    concurrency decides, and the smaller config id.
    """
    eligible = [row for row in rows if row.requests_per_s > 0 and meets(row, bounds)]
    if rps is None:
        return min(eligible, key=_fastest_first, default=None)
    return min(eligible, key=lambda row: (replicas_for(rps, row.requests_per_s), *_fastest_first(row)[1:]), default=None)


def _fastest_first(row: LoadPointRow) -> tuple[float, float, float, str]:
    latency = math.inf if row.e2e_p90_ms is None else row.e2e_p90_ms
    concurrency = math.inf if row.concurrency is None else row.concurrency
    return (-row.requests_per_s, latency, concurrency, row.config_id)


def headroom(row: LoadPointRow, bounds: Mapping[str, float]) -> tuple[Headroom, ...]:
    """How much of each bound is left, tightest (binding) first. Bounds whose value is unknown are left out."""
    found = []
    for bound, limit in bounds.items():
        value = bounded_value(row, bound)
        if value is not None:
            spare = value - limit if bound == MIN_ACCURACY else limit - value
            found.append(Headroom(bound, limit, value, spare / limit))
    return tuple(sorted(found, key=lambda h: h.share))


def replicas_for(rps: float, rps_per_replica: float) -> int:
    """How many replicas serve `rps` requests per second. Raises ValueError unless both are above 0."""
    if rps <= 0 or rps_per_replica <= 0:
        raise ValueError(f"rates must be above 0, got {rps} and {rps_per_replica} requests per second")
    return max(1, math.ceil(rps / rps_per_replica * (1 - _QUOTIENT_TOLERANCE)))


def usd_per_million_output_tokens(usd_per_hour: float | None, output_tokens_per_s: float) -> float | None:
    """Price per hour / (output tokens per second x 3600) x 1,000,000. None when the price is unknown or nothing was produced."""
    if usd_per_hour is None or output_tokens_per_s <= 0:
        return None
    return usd_per_hour / (output_tokens_per_s * 3600) * 1_000_000
