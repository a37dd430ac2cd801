"""What would have to give when nothing is feasible: each bound's smallest change that alone would make something feasible."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from assets.rankings.candidates import (
    LIST_CONSTRAINTS,
    Candidate,
    Group,
    Terms,
    allowed_load_points,
    candidate_at,
    over_budget,
)
from assets.rankings.operating_points import MIN_ACCURACY, bounded_value, meets, within
from assets.rankings.response import BoundChange
from assets.rankings.rows import LoadPointRow

Groups = Sequence[Group]
Changes = tuple[BoundChange, ...]


def relaxed_requests(groups: Groups, terms: Terms) -> list[tuple[Changes, Terms]]:
    """Each single change that makes something feasible, with the request so changed.

    Where no single change is enough: the one set of changes to numeric limits that is the smallest, as the sum of the logarithms of
    their ratios. Empty when the limits are not what stands in the way (no measurement of the use case's workloads, for example).
    A name that is to be allowed is the one of the cheapest feasible candidate; token lengths are changed to the nearest ones under which
    something is feasible.
    """
    singles: list[Changes] = []
    for bound in terms.bounds:
        singles += _sla_bound(groups, terms, bound)
    singles += _limit(groups, terms, "max_gpus", lambda c: c.gpus)
    singles += _limit(groups, terms, "max_cost_per_hour_usd", lambda c: c.cost.per_hour_usd)
    singles += _rate(groups, terms)
    for constraint in LIST_CONSTRAINTS:
        singles += _list(groups, terms, constraint)
    singles += _capacity(groups, terms)
    singles += _kinds(groups, terms)
    singles += _token_lengths(groups, terms)
    return [(changes, changed(terms, changes)) for changes in singles or _together(groups, terms)]


def changed(terms: Terms, changes: Iterable[BoundChange]) -> Terms:
    """The request with the changes made. Raises KeyError for a bound that no request has."""
    parts: dict[str, Any] = {"sla": terms.request.sla, "load": terms.request.load, "constraints": terms.request.constraints}
    top: dict[str, Any] = {}
    for change in changes:
        section, _, name = change.bound.partition(".")
        if name:
            parts[section] = replace(parts[section], **{name: change.required})
        else:
            top[section] = change.required
    request = replace(terms.request, **parts, **top)
    load = request.load
    return Terms(
        request,
        request.sla.bounds() if request.sla else {},
        load.rps or terms.rps,
        load.input_tokens or terms.input_tokens,
        load.output_tokens or terms.output_tokens,
        terms.for_load,
    )


def _without(terms: Terms, *bounds: str) -> Terms:
    return changed(terms, [BoundChange(bound, None, None) for bound in bounds])


def _feasible(groups: Groups, terms: Terms) -> Iterator[Candidate]:
    """Every load point that would do, not only the best of its deployment."""
    constraints = terms.request.constraints
    for row in allowed_load_points(groups, terms):
        if meets(row, terms.bounds):
            candidate = candidate_at(row, terms.rps, constraints.capacity)
            if over_budget(candidate, constraints) is None:
                yield candidate


def _sla_bound(groups: Groups, terms: Terms, bound: str) -> list[Changes]:
    field = f"sla.{bound}"
    values = [bounded_value(c.row, bound) for c in _feasible(groups, _without(terms, field))]
    known = [value for value in values if value is not None]
    if not known:
        return []
    required = max(known) if bound == MIN_ACCURACY else min(known)
    # an accuracy of 0 is met only without the bound
    return [(BoundChange(field, terms.bounds[bound], required or None),)]


def _limit(groups: Groups, terms: Terms, name: str, value_of: Callable[[Candidate], float | None]) -> list[Changes]:
    asked = getattr(terms.request.constraints, name)
    if asked is None:
        return []
    field = f"constraints.{name}"
    values = [value_of(c) for c in _feasible(groups, _without(terms, field))]
    known = [value for value in values if value is not None]
    return [(BoundChange(field, asked, min(known)),)] if known else []


def _rate(groups: Groups, terms: Terms) -> list[Changes]:
    unlimited = _without(terms, "constraints.max_gpus", "constraints.max_cost_per_hour_usd")
    rates = [c.row.requests_per_s * _replicas_within(c, terms) for c in _feasible(groups, unlimited)]
    possible = [rate for rate in rates if 0 < rate < terms.rps]
    return [(BoundChange("load.rps", terms.rps, max(possible)),)] if possible else []


def _replicas_within(candidate: Candidate, terms: Terms) -> int:
    """How many replicas the limits on GPUs and cost allow; those the load needs where neither is set."""
    limits = terms.request.constraints
    most = candidate.replicas
    if limits.max_gpus is not None and candidate.row.gpu_count > 0:
        most = min(most, limits.max_gpus // candidate.row.gpu_count)
    if limits.max_cost_per_hour_usd is not None:
        price = candidate_at(candidate.row, candidate.row.requests_per_s, limits.capacity).cost.per_hour_usd
        if price is None:
            return 0
        most = min(most, math.floor(limits.max_cost_per_hour_usd / price) if price > 0 else most)
        if most * price > limits.max_cost_per_hour_usd:
            most -= 1  # the quotient was rounded up to a whole number
    return most


def _list(groups: Groups, terms: Terms, constraint: str) -> list[Changes]:
    asked: tuple[str, ...] | None = getattr(terms.request.constraints, constraint)
    if asked is None:
        return []
    field = f"constraints.{constraint}"
    named = [(c, _usual_name(c.row, constraint)) for c in _feasible(groups, _without(terms, field))]
    possible = [(c, name) for c, name in named if name is not None]
    if not possible:
        return []
    _, name = min(possible, key=lambda pair: (pair[0].price, pair[1]))
    return [(BoundChange(field, asked, (*asked, name)),)]


def _usual_name(row: LoadPointRow, constraint: str) -> str | None:
    names: Mapping[str, str | None] = {
        "models": row.model_id,
        "licences": row.licence,
        "frameworks": row.framework,
        "quantizations": row.quantization,
        "gpus": row.gpu_type,
    }
    return names[constraint]


def _capacity(groups: Groups, terms: Terms) -> list[Changes]:
    asked = terms.request.constraints.capacity
    change = (BoundChange("constraints.capacity", asked, "any"),)
    return [change] if asked != "any" and any(_feasible(groups, changed(terms, change))) else []


def _kinds(groups: Groups, terms: Terms) -> list[Changes]:
    change = (BoundChange("kinds", terms.request.kinds, ("measured", "published")),)
    return [change] if len(set(terms.request.kinds)) == 1 and any(_feasible(groups, changed(terms, change))) else []


def _token_lengths(groups: Groups, terms: Terms) -> list[Changes]:
    """The lengths of another measured workload, the nearest one under which something is feasible."""
    in_force = (terms.input_tokens, terms.output_tokens)
    for workload in sorted({group.workload for group in groups}, key=lambda w: (w.distance(*in_force), w.input_tokens, w.output_tokens)):
        lengths = (
            ("input_tokens", terms.input_tokens, workload.input_tokens),
            ("output_tokens", terms.output_tokens, workload.output_tokens),
        )
        changes = tuple(BoundChange(f"load.{name}", asked, have) for name, asked, have in lengths if asked != have)
        if changes and any(_feasible(groups, changed(terms, changes))):
            return [changes]
    return []


@dataclass(frozen=True, slots=True)
class _Miss:
    """How far a load point is from the numeric limits."""

    distance: float
    changes: Changes


def _together(groups: Groups, terms: Terms) -> list[Changes]:
    capacity = terms.request.constraints.capacity
    misses = [
        miss for row in allowed_load_points(groups, terms) if (miss := _miss(candidate_at(row, terms.rps, capacity), terms)) is not None
    ]
    return [min(misses, key=lambda m: m.distance).changes] if misses else []


def _miss(candidate: Candidate, terms: Terms) -> _Miss | None:
    distance = 0.0
    changes: list[BoundChange] = []
    for bound, limit in terms.bounds.items():
        value = bounded_value(candidate.row, bound)
        if not value:
            return None
        if not within(bound, limit, value):
            distance += abs(math.log(value / limit))
            changes.append(BoundChange(f"sla.{bound}", limit, value))
    limits = terms.request.constraints
    if limits.max_gpus is not None and candidate.gpus > limits.max_gpus:
        # one is added because a limit may be 0
        distance += math.log((candidate.gpus + 1) / (limits.max_gpus + 1))
        changes.append(BoundChange("constraints.max_gpus", limits.max_gpus, candidate.gpus))
    if limits.max_cost_per_hour_usd is not None:
        cost = candidate.cost.per_hour_usd
        if cost is None:
            return None
        if cost > limits.max_cost_per_hour_usd:
            distance += math.log(cost / limits.max_cost_per_hour_usd)
            changes.append(BoundChange("constraints.max_cost_per_hour_usd", limits.max_cost_per_hour_usd, cost))
    return _Miss(distance, tuple(changes)) if changes else None
