"""The five criteria that configurations are compared by, and their weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from assets.rankings.errors import InvalidRequestError

CriterionName = Literal["accuracy", "latency", "throughput", "cost", "memory"]


@dataclass(frozen=True, slots=True)
class Criterion:
    """One thing to compare by; `maximize` says whether more of it is better. `default_weight` is a share of 1."""

    name: CriterionName
    maximize: bool
    default_weight: float
    description: str


CRITERIA: tuple[Criterion, ...] = (
    Criterion("accuracy", True, 0.30, "share of correct answers of the model version, 0 to 1"),
    Criterion("latency", False, 0.25, "90th percentile of the end-to-end latency at the operating point, ms"),
    Criterion("throughput", True, 0.20, "output tokens per second at the operating point, over all replicas"),
    Criterion(
        "cost", False, 0.15, "USD per hour of all replicas for the asked load; where no load is given, USD per million output tokens"
    ),
    Criterion("memory", False, 0.10, "device memory that the deployment needs, over all replicas, bytes"),
)
CRITERION_NAMES: tuple[CriterionName, ...] = tuple(c.name for c in CRITERIA)
DEFAULT_WEIGHTS: Mapping[CriterionName, float] = {c.name: c.default_weight for c in CRITERIA}


def validated_weights(weights: Mapping[str, float] | None) -> dict[CriterionName, float]:
    """All five weights, rescaled to sum 1. None means the defaults; a criterion that is not named weighs 0.

    Raises InvalidRequestError for an unknown criterion, a negative or non-finite weight, or weights that sum to 0.
    """
    if weights is None:
        return dict(DEFAULT_WEIGHTS)
    unknown = sorted(set(weights) - set(CRITERION_NAMES))
    if unknown:
        raise InvalidRequestError("weights", f"unknown criterion {', '.join(unknown)}; the criteria are {', '.join(CRITERION_NAMES)}")
    for name, weight in weights.items():
        if not math.isfinite(weight) or weight < 0:
            raise InvalidRequestError(f"weights.{name}", f"{weight} is not a weight; give a finite number of 0 or more")
    largest = max(weights.values(), default=0.0)
    if largest == 0:
        raise InvalidRequestError("weights", "the weights sum to 0; give at least one criterion a weight above 0")
    # dividing by the largest first keeps huge and tiny weights from overflowing or vanishing in the sum
    scaled = {name: weights.get(name, 0.0) / largest for name in CRITERION_NAMES}
    total = sum(scaled.values())
    return {name: weight / total for name, weight in scaled.items()}
