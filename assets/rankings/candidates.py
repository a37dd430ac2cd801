"""From load points to candidates: one deployment under one workload, kept with its operating point or dropped with one reason."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from assets.rankings.workloads import MeasuredWorkload, closest


@dataclass(frozen=True, slots=True)
class Terms:
    """A request with its defaults filled in: the bounds, the rate and the token counts of a request in force.

    `for_load`: the rate was asked for, so that candidates are compared as what serves it. Otherwise they are compared as they are, each run
    at its limit, which is what the marts do.
    """

    request: RecommendRequest
    bounds: Mapping[str, float]
    rps: float
    input_tokens: int
    output_tokens: int
    for_load: bool


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to serve the load: a load point, how many replicas of it, and what they cost."""

    row: LoadPointRow
    replicas: int
    cost: Cost

    @property
    def price(self) -> float:
        """USD per hour to order by: an unknown price comes last."""
        return math.inf if self.cost.per_hour_usd is None else self.cost.per_hour_usd

    @property
    def gpus(self) -> int:
        """GPUs over all replicas."""
        return self.replicas * self.row.gpu_count


@dataclass(frozen=True, slots=True)
class Group:
    """The load points of one deployment under one workload."""

    workload: MeasuredWorkload
    rows: Sequence[LoadPointRow]


def grouped(rows: Iterable[LoadPointRow], workloads: Sequence[str]) -> list[Group]:
    """The load points of the given workloads, one group per deployment and workload (name and lengths)."""
    groups: dict[tuple[str, str, int, int], list[LoadPointRow]] = defaultdict(list)
    for row in rows:
        if row.workload in workloads:
            groups[row.deployment_id, row.workload, row.input_tokens, row.output_tokens].append(row)
    return [Group(MeasuredWorkload.of(found[0]), found) for found in groups.values()]


def compared_workload(groups: Iterable[Group], terms: Terms) -> MeasuredWorkload | None:
    """The workload that the request is answered from: the closest to its lengths of those that an allowed deployment was measured under.

    Allowed: by kind of result, names and capacity. Bounds, rate and limits do not count, so that changing them compares the same.
    """
    measured = {group.workload for group in groups if not isinstance(_allowed_rows(group, terms.request), str)}
    return closest(measured, terms.input_tokens, terms.output_tokens)


def candidate_at(row: LoadPointRow, rps: float, capacity: Capacity) -> Candidate:
    """Serve `rps` requests per second with replicas of this load point."""
    replicas = replicas_for(rps, row.requests_per_s)
    return Candidate(row, replicas, _cost(row, replicas, capacity))


def assess(group: Group, terms: Terms, compared: MeasuredWorkload | None) -> Candidate | str:
    """The candidate that a group of load points makes, or the reason why it makes none. The first filter that fails names it."""
    rows = _allowed_rows(group, terms.request)
    if isinstance(rows, str):
        return rows
    if group.workload != compared:
        return "other_workload"
    point = operating_point(rows, terms.bounds, terms.rps if terms.for_load else None)
    if point is None:
        return _unmet_bound(rows, terms.bounds)
    candidate = candidate_at(point, terms.rps, terms.request.constraints.capacity)
    return over_budget(candidate, terms.request.constraints) or candidate


def allowed_load_points(groups: Sequence[Group], terms: Terms) -> Iterator[LoadPointRow]:
    """Every load point under the compared workload that no constraint on names, kinds or capacity excludes."""
    compared = compared_workload(groups, terms)
    for group in groups:
        if group.workload == compared and not isinstance(rows := _allowed_rows(group, terms.request), str):
            yield from (row for row in rows if row.requests_per_s > 0)


def _allowed_rows(group: Group, request: RecommendRequest) -> list[LoadPointRow] | str:
    """The load points of a group that kind, names and capacity allow, or the reason why there are none."""
    rows = [row for row in group.rows if row.kind in request.kinds]
    if not rows:
        return "kind_not_asked_for"
    # the rows of a deployment are alike in all that names and capacity are about
    return broken_constraint(rows[0], request.constraints) or rows


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
