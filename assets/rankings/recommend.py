"""The recommendation: candidates, filters with reasons, operating points, replicas, cost, then TOPSIS or the Pareto front."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from assets.rankings.candidates import Candidate, Group, Terms, assess, compared_workload, grouped
from assets.rankings.criteria import CRITERIA, CRITERION_NAMES, CriterionName
from assets.rankings.errors import InvalidRequestError
from assets.rankings.operating_points import headroom
from assets.rankings.pareto import pareto_front
from assets.rankings.relaxations import relaxed_requests
from assets.rankings.request import RecommendRequest, Sla
from assets.rankings.response import ComparedWorkload, Recommendation, RecommendResponse, Relaxation
from assets.rankings.rows import LoadPointRow, UseCaseRow
from assets.rankings.topsis import TopsisResult, topsis
from assets.rankings.workloads import length_warning

PARETO_CRITERIA: tuple[CriterionName, ...] = ("latency", "accuracy", "cost")
_MAXIMIZE = [c.maximize for c in CRITERIA]
_LATENCY = CRITERION_NAMES.index("latency")


def recommend(request: RecommendRequest, use_case: UseCaseRow, rows: Iterable[LoadPointRow]) -> RecommendResponse:
    """Answer a request from the load points of the marts (`rows`; those of other use cases are ignored).

    Only deployments measured under one workload are compared: the one whose lengths are closest to those asked for, or to the use
    case's typical ones where none are asked for. Raises InvalidRequestError when `use_case` is not the one asked for.
    """
    if use_case.use_case != request.use_case:
        raise InvalidRequestError("use_case", f"asked for {request.use_case}, got the terms of {use_case.use_case}")
    terms = terms_of(request, use_case)
    groups = grouped(rows, use_case.workloads)
    pool = _pool(groups, terms)
    ranked, weights = _ranked(pool, terms)
    return RecommendResponse(
        recommendations=ranked,
        considered=len(groups),
        feasible=len(pool.candidates),
        filtered_out=dict(sorted(pool.filtered.items())),
        relaxations=() if pool.candidates else _relaxations(groups, terms),
        weights=weights,
        sla=terms.bounds,
        rps=terms.rps,
        compared=_compared(request, groups, terms),
    )


def terms_of(request: RecommendRequest, use_case: UseCaseRow) -> Terms:
    """The request with the use case's default rate, lengths and bounds filled in where it gives none."""
    sla = request.sla or Sla(ttft_p90_ms=use_case.sla_ttft_p90_ms, tpot_p90_ms=use_case.sla_tpot_p90_ms)
    rps = use_case.default_rps if request.load.rps is None else request.load.rps
    return Terms(
        replace(request, sla=sla, load=replace(request.load, rps=rps)),
        sla.bounds(),
        rps,
        request.load.input_tokens or use_case.default_input_tokens,
        request.load.output_tokens or use_case.default_output_tokens,
        request.load.rps is not None,
    )


def _compared(request: RecommendRequest, groups: Sequence[Group], terms: Terms) -> ComparedWorkload | None:
    found = compared_workload(groups, terms)
    if found is None:
        return None
    return ComparedWorkload(
        workload=found.workload,
        input_tokens=found.input_tokens,
        output_tokens=found.output_tokens,
        distance=found.distance(terms.input_tokens, terms.output_tokens),
        warning=length_warning(found, request.load, terms.input_tokens, terms.output_tokens),
    )


@dataclass(frozen=True, slots=True)
class _Pool:
    """The feasible candidates, which of them are on the Pareto front, and how many others were dropped for which reason."""

    candidates: list[Candidate]
    on_front: Sequence[bool]
    filtered: Counter[str]


def _pool(groups: Sequence[Group], terms: Terms) -> _Pool:
    pool: list[Candidate] = []
    filtered: Counter[str] = Counter()
    compared = compared_workload(groups, terms)
    for group in groups:
        found = assess(group, terms, compared)
        if isinstance(found, str):
            filtered[found] += 1
        else:
            pool.append(found)
    front = [bool(kept) for kept in _front(pool, terms.for_load)]
    if terms.request.method == "pareto":
        filtered["dominated"] += len(pool) - sum(front)
        pool = [candidate for candidate, kept in zip(pool, front, strict=True) if kept]
        front = [True] * len(pool)
    return _Pool(pool, front, +filtered)


def criteria_values(candidate: Candidate, for_load: bool) -> dict[CriterionName, float | None]:
    """The values that a candidate is compared by; None where unknown.

    For an asked load: over all replicas, and the cost is what they cost for it, since an idle half of a deployment is paid for too (every
    candidate serves the same load, so USD an hour orders them as USD a served token would). Else: of one deployment at its limit.
    """
    row = candidate.row
    replicas = candidate.replicas if for_load else 1
    return {
        "accuracy": row.accuracy,
        "latency": row.e2e_p90_ms,
        "throughput": replicas * row.output_tokens_per_s,
        "cost": candidate.cost.per_hour_usd if for_load else candidate.cost.per_million_output_tokens_usd,
        "memory": float(replicas * row.vram_required_bytes),
    }


def _matrix(pool: Sequence[Candidate], names: Sequence[CriterionName], for_load: bool) -> np.ndarray[Any, np.dtype[np.float64]]:
    values = [criteria_values(candidate, for_load) for candidate in pool]
    # None becomes NaN
    return np.array([[row[name] for name in names] for row in values], dtype=np.float64).reshape(len(pool), len(names))


def _front(pool: Sequence[Candidate], for_load: bool) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return pareto_front(
        _matrix(pool, PARETO_CRITERIA, for_load), [c.maximize for name in PARETO_CRITERIA for c in CRITERIA if c.name == name]
    )


def _ranked(found: _Pool, terms: Terms) -> tuple[tuple[Recommendation, ...], Mapping[CriterionName, float]]:
    pool = found.candidates
    matrix = _matrix(pool, CRITERION_NAMES, terms.for_load)
    asked = terms.request.normalized_weights
    weights = np.array([asked[name] for name in CRITERION_NAMES])
    result = topsis(matrix, weights, _MAXIMIZE)
    order = sorted(range(len(pool)), key=lambda i: (result.ranks[i], pool[i].price, pool[i].row.config_id))
    recommendations = []
    for i in order[: terms.request.top]:
        candidate = pool[i]
        room = headroom(candidate.row, terms.bounds)
        recommendations.append(
            Recommendation(
                rank=int(result.ranks[i]),
                score=float(result.scores[i]),
                score_interval=_score_interval(i, candidate, matrix, result),
                operating_point=candidate.row,
                replicas=candidate.replicas,
                gpus=candidate.gpus,
                cost=candidate.cost,
                sla_headroom=room,
                binding_bound=room[0].bound if room else None,
                pareto=found.on_front[i],
                criteria=criteria_values(candidate, terms.for_load),
            )
        )
    used = {name: float(weight) for name, weight in zip(CRITERION_NAMES, result.weights, strict=True) if weight > 0}
    return tuple(recommendations), used


def _score_interval(
    index: int, candidate: Candidate, matrix: np.ndarray[Any, np.dtype[np.float64]], result: TopsisResult
) -> tuple[float, float] | None:
    """The score again with this candidate's latency at the ends of its confidence interval, everything else as it is."""
    interval = candidate.row.intervals.get("e2e_p90_ms")
    if interval is None or result.weights[_LATENCY] == 0:
        return None
    scores = [float(result.scores[index])]
    for end in interval:
        moved = matrix.copy()
        moved[index, _LATENCY] = end
        scores.append(float(topsis(moved, result.weights, _MAXIMIZE).scores[index]))
    return min(scores), max(scores)


def _relaxations(groups: Sequence[Group], terms: Terms) -> tuple[Relaxation, ...]:
    found = []
    for changes, relaxed in relaxed_requests(groups, terms):
        ranked, _ = _ranked(_pool(groups, relaxed), relaxed)
        found.append(Relaxation(changes, ranked[0], relaxed.bounds))
    return tuple(found)
