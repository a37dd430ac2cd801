"""What comes back from a recommendation: ranked entries, what was left out and why, and what would have to give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from assets.rankings.criteria import CriterionName
from assets.rankings.request import Capacity
from assets.rankings.rows import LoadPointRow


@dataclass(frozen=True, slots=True)
class Cost:
    """USD. Per hour: for all replicas. Per million tokens: of output tokens at the operating point. None where the price is unknown.

    `capacity` says which price `per_hour_usd` and `per_million_output_tokens_usd` (the ones compared) stand for.
    """

    capacity: Capacity | None
    per_hour_usd: float | None
    per_million_output_tokens_usd: float | None
    on_demand_per_hour_usd: float | None
    spot_per_hour_usd: float | None
    on_demand_per_million_output_tokens_usd: float | None
    spot_per_million_output_tokens_usd: float | None


@dataclass(frozen=True, slots=True)
class Headroom:
    """How far the operating point stays inside one bound, as a share of the bound: 0.25 means that a quarter of it is left."""

    bound: str
    limit: float
    value: float
    share: float


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One way to serve the load, with its evidence (`operating_point` is the measurement it stands on).

    `score` is the TOPSIS closeness, 0 to 1. `score_interval` is the range of the score when this entry's 90th percentile of the
    end-to-end latency moves over its confidence interval, all else equal; None where that interval is unknown or latency does not
    count. `criteria` holds the compared values, also of criteria left out of the comparison (None: unknown).
    """

    rank: int
    score: float
    score_interval: tuple[float, float] | None
    operating_point: LoadPointRow
    replicas: int
    gpus: int
    cost: Cost
    sla_headroom: tuple[Headroom, ...]
    binding_bound: str | None
    pareto: bool
    criteria: Mapping[CriterionName, float | None]


@dataclass(frozen=True, slots=True)
class BoundChange:
    """One bound of the request as asked and as it would have to be, for example `sla.ttft_p90_ms` 300 -> 412.5."""

    bound: str
    asked: object
    required: object


@dataclass(frozen=True, slots=True)
class Relaxation:
    """Changes that together make something feasible, each the smallest, and the best recommendation that they allow.

    One change where one alone is enough; several only where no single change is. `sla` are all bounds in force then, defaults included:
    what a request must carry to get this answer.
    """

    changes: tuple[BoundChange, ...]
    recommendation: Recommendation
    sla: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ComparedWorkload:
    """The workload under which all that was compared was measured; the token counts are means of one request.

    `distance` is |ln(measured / wanted)| of the input tokens plus that of the output tokens. `warning` says in words when one of them
    is more than a factor of 2 off what was asked for, or off the use case's typical length where none was.
    """

    workload: str
    input_tokens: int
    output_tokens: int
    distance: float
    warning: str | None


@dataclass(frozen=True, slots=True)
class RecommendResponse:
    """`considered` = `feasible` + the sum of `filtered_out`: each candidate (a deployment under a workload) counts once.

    `recommendations` are the first `top` of the feasible ones. `weights` are those compared by: of the known criteria, sum 1.
    `sla` are the bounds in force, `rps` the rate in force (asked or default). `compared` is None when nothing that was measured is
    allowed.
    """

    recommendations: tuple[Recommendation, ...]
    considered: int
    feasible: int
    filtered_out: Mapping[str, int]
    relaxations: tuple[Relaxation, ...]
    weights: Mapping[CriterionName, float]
    sla: Mapping[str, float]
    rps: float
    compared: ComparedWorkload | None
