"""Service level objectives: bounds on percentiles of a load point, and on single requests for goodput."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from assets.benchmark.load.decode import RequestRecord
from assets.benchmark.load.statistics import LoadStatistics, share_in_window

_OBJECTIVE = re.compile(r"(ttft|tpot|itl|e2e)(?:_(mean|p50|p90|p95|p99))?(?:_ms)?\s*<=?\s*(\d+(?:\.\d+)?)(?:\s*ms)?\Z")
DEFAULT_STATISTIC = "p90"
HELP = (
    "METRIC_STATISTIC<=MILLISECONDS, comma-separated: metrics ttft, tpot, itl, e2e; statistics mean, p50, p90, p95, p99; e.g. ttft_p90<=300"
)


class ObjectiveError(ValueError):
    """An objective cannot be read; the message says how it is written."""


@dataclass(frozen=True, slots=True)
class Objective:
    """`metric` (e.g. `ttft_ms`) at `statistic` must be at most `bound_ms`."""

    metric: str
    statistic: str
    bound_ms: float

    def __str__(self) -> str:
        """As it is written."""
        return f"{self.metric.removesuffix('_ms')}_{self.statistic}<={self.bound_ms:g}"


def parse_objectives(text: str) -> tuple[Objective, ...]:
    """From HELP's notation. Raises ObjectiveError."""
    objectives: list[Objective] = []
    for part in text.split(","):
        found = _OBJECTIVE.match(part.strip())
        if found is None:
            raise ObjectiveError(f"{part.strip()!r} is no objective: give {HELP}")
        objectives.append(Objective(f"{found[1]}_ms", found[2] or DEFAULT_STATISTIC, float(found[3])))
    return tuple(objectives)


def missed(statistics: LoadStatistics, objectives: Sequence[Objective]) -> tuple[str, ...]:
    """The objectives that a load point does not meet, each with what it was. Requests that failed meet none."""
    reasons = [f"{statistics.requests_failed} of {statistics.requests_sent} requests failed"] if statistics.requests_failed else []
    for objective in objectives:
        value = getattr(getattr(statistics, objective.metric), objective.statistic)
        if value is None or value > objective.bound_ms:
            reasons.append(f"{objective}: {'not measured' if value is None else f'{value:.1f} ms'}")
    return tuple(reasons)


def goodput_per_s(records: Sequence[RequestRecord], statistics: LoadStatistics, objectives: Sequence[Objective]) -> float:
    """Requests per second that meet every bound themselves, in the load point's window."""
    good = (share_in_window(record, statistics.window) for record in records if _meets(record, objectives))
    return sum(good) / statistics.window.duration_s


def _loosest(objectives: Sequence[Objective]) -> Sequence[Objective]:
    """One of each metric: a request may be as slow as the slowest that a percentile's bound allows."""
    return list({objective.metric: objective for objective in sorted(objectives, key=lambda objective: objective.bound_ms)}.values())


def _meets(record: RequestRecord, objectives: Sequence[Objective]) -> bool:
    if record.failure is not None:
        return False
    for objective in _loosest(objectives):
        values = record.token_gaps_ms if objective.metric == "itl_ms" else (getattr(record, objective.metric),)
        # a single gap over the bound is no miss where the bound is of a percentile: the request's own mean is held against it
        value = sum(values) / len(values) if values and None not in values else 0.0
        if value > objective.bound_ms:
            return False
    return True
