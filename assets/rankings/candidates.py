"""From load points to candidates: one deployment under one workload, kept with its operating point or dropped with one reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from assets.rankings.operating_points import (
    MIN_ACCURACY,
    bounded_value,
    operating_point,
    replicas_for,
    usd_per_million_output_tokens,
    within,
)
from assets.rankings.request import Capacity, Constraints, RecommendRequest
from assets.rankings.response import Cost
from assets.rankings.rows import LoadPointRow

# Measurements count for a request when their token lengths lie within this factor of the lengths asked for.
TOKEN_LENGTH_FACTOR = 2.0


@dataclass(frozen=True, slots=True)
class Terms:
    """A request with its defaults filled in: the bounds and the rate in force."""

    request: RecommendRequest
    bounds: Mapping[str, float]
    rps: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to serve the load: a load point, how many replicas of it, and what they cost."""

    row: LoadPointRow
    replicas: int
    cost: Cost

    @property
    def gpus(self) -> int:
        """GPUs over all replicas."""
        return self.replicas * self.row.gpu_count


def grouped(rows: Iterable[LoadPointRow], workloads: Sequence[str]) -> list[list[LoadPointRow]]:
    """The load points of the given workloads, one group per deployment and workload (name and lengths)."""
    groups: dict[tuple[str, str, int, int], list[LoadPointRow]] = defaultdict(list)
    for row in rows:
        if row.workload in workloads:
            groups[row.deployment_id, row.workload, row.input_tokens, row.output_tokens].append(row)
    return list(groups.values())


def candidate_at(row: LoadPointRow, rps: float, capacity: Capacity) -> Candidate:
    """Serve `rps` requests per second with replicas of this load point."""
    replicas = replicas_for(rps, row.requests_per_s)
    return Candidate(row, replicas, _cost(row, replicas, capacity))


def assess(group: Sequence[LoadPointRow], terms: Terms) -> Candidate | str:
    """The candidate that a group of load points makes, or the reason why it makes none. The first filter that fails names it."""
    request = terms.request
    rows = [row for row in group if row.kind in request.kinds]
    if not rows:
        return "kind_not_asked_for"
    if not token_lengths_fit(rows[0], request):
        return "token_lengths_not_measured"
    constraint = broken_constraint(rows[0], request.constraints)
    if constraint is not None:
        return constraint
    point = operating_point(rows, terms.bounds)
    if point is None:
        return _unmet_bound(rows, terms.bounds)
    candidate = candidate_at(point, terms.rps, request.constraints.capacity)
    return over_budget(candidate, request.constraints) or candidate


def token_lengths_fit(row: LoadPointRow, request: RecommendRequest) -> bool:
    """Whether the measured lengths lie within a factor of 2 of those asked for; a length that is not asked for fits."""
    asked = ((request.load.input_tokens, row.input_tokens), (request.load.output_tokens, row.output_tokens))
    return all(want is None or token_length_fits(want, have) for want, have in asked)


def token_length_fits(asked: int, measured: int) -> bool:
    """Whether a measured number of tokens stands for the one asked for."""
    return asked / TOKEN_LENGTH_FACTOR <= measured <= asked * TOKEN_LENGTH_FACTOR


def names_of(row: LoadPointRow, constraint: str) -> tuple[str, ...]:
    """The names that a row answers to under a list constraint, lower case, the usual one first. Raises KeyError for another one."""
    names: Mapping[str, tuple[str | None, ...]] = {
        "models": (row.model_id, row.hub_id, row.model_name),
        "licences": (row.licence,),
        "frameworks": (row.framework,),
        "quantizations": (row.quantization,),
        "gpus": (row.gpu_type, row.hardware_id),
    }
    return tuple(name.casefold() for name in names[constraint] if name is not None)


LIST_CONSTRAINTS: Mapping[str, str] = {
    "models": "model_not_allowed",
    "licences": "licence_not_allowed",
    "frameworks": "framework_not_allowed",
    "quantizations": "quantization_not_allowed",
    "gpus": "gpu_not_allowed",
}


def broken_constraint(row: LoadPointRow, constraints: Constraints) -> str | None:
    """The first constraint on names or capacity that a row breaks, as a reason."""
    for constraint, reason in LIST_CONSTRAINTS.items():
        allowed: tuple[str, ...] | None = getattr(constraints, constraint)
        if allowed is not None and not {name.casefold() for name in allowed} & set(names_of(row, constraint)):
            return reason
    if constraints.capacity == "spot" and row.spot_usd_per_hour is None:
        return "no_spot_price"
    return None


def over_budget(candidate: Candidate, constraints: Constraints) -> str | None:
    """The limit over all replicas that a candidate breaks, as a reason."""
    if constraints.max_gpus is not None and candidate.gpus > constraints.max_gpus:
        return "too_many_gpus"
    if constraints.max_cost_per_hour_usd is not None:
        if candidate.cost.per_hour_usd is None:
            return "price_unknown"
        if candidate.cost.per_hour_usd > constraints.max_cost_per_hour_usd:
            return "cost_above_maximum"
    return None


def _unmet_bound(rows: Sequence[LoadPointRow], bounds: Mapping[str, float]) -> str:
    for bound, limit in bounds.items():
        values = [bounded_value(row, bound) for row in rows]
        subject = "accuracy" if bound == MIN_ACCURACY else bound
        if all(value is None for value in values):
            return f"{subject}_unknown"
        if not any(within(bound, limit, value) for value in values):
            return "accuracy_below_minimum" if bound == MIN_ACCURACY else f"{bound}_above_limit"
    return "no_load_point_meets_all_bounds"


def _cost(row: LoadPointRow, replicas: int, capacity: Capacity) -> Cost:
    prices: dict[Capacity, float] = {}
    if row.on_demand_usd_per_hour is not None and capacity in ("on_demand", "any"):
        prices["on_demand"] = row.on_demand_usd_per_hour
    if row.spot_usd_per_hour is not None and capacity in ("spot", "any"):
        prices["spot"] = row.spot_usd_per_hour
    paid, price = min(prices.items(), key=lambda item: item[1], default=(None, None))
    return Cost(
        capacity=paid,
        per_hour_usd=_times(price, replicas),
        per_million_output_tokens_usd=usd_per_million_output_tokens(price, row.output_tokens_per_s),
        on_demand_per_hour_usd=_times(row.on_demand_usd_per_hour, replicas),
        spot_per_hour_usd=_times(row.spot_usd_per_hour, replicas),
        on_demand_per_million_output_tokens_usd=usd_per_million_output_tokens(row.on_demand_usd_per_hour, row.output_tokens_per_s),
        spot_per_million_output_tokens_usd=usd_per_million_output_tokens(row.spot_usd_per_hour, row.output_tokens_per_s),
    )


def _times(price: float | None, replicas: int) -> float | None:
    return None if price is None else price * replicas
