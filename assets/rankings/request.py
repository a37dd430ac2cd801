"""What a caller asks for. Every class checks itself and raises InvalidRequestError, which names the field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

from assets.rankings.criteria import CriterionName, validated_weights
from assets.rankings.errors import InvalidRequestError

Capacity = Literal["spot", "on_demand", "any"]
Method = Literal["topsis", "pareto"]
RankableKind = Literal["measured", "published"]

MAX_TOP = 1000


def _positive(name: str, value: float | None) -> None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise InvalidRequestError(name, f"{value} is not possible; give a number above 0")


@dataclass(frozen=True, slots=True)
class Load:
    """The traffic to be served. None: the use case's default.

    `rps` is requests per second over all replicas; the token counts are means of one request.
    """

    rps: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None

    def __post_init__(self) -> None:
        for item in fields(self):
            _positive(f"load.{item.name}", getattr(self, item.name))


@dataclass(frozen=True, slots=True)
class Sla:
    """Bounds that an operating point must meet: upper bounds in milliseconds, `min_accuracy` as a share of 1.

    `latency` is end to end, from the intended send time to the last token.
    """

    ttft_p50_ms: float | None = None
    ttft_p90_ms: float | None = None
    ttft_p99_ms: float | None = None
    tpot_p50_ms: float | None = None
    tpot_p90_ms: float | None = None
    tpot_p99_ms: float | None = None
    itl_p90_ms: float | None = None
    latency_p50_ms: float | None = None
    latency_p90_ms: float | None = None
    latency_p99_ms: float | None = None
    min_accuracy: float | None = None

    def __post_init__(self) -> None:
        for item in fields(self):
            _positive(f"sla.{item.name}", getattr(self, item.name))
        if self.min_accuracy is not None and self.min_accuracy > 1:
            raise InvalidRequestError("sla.min_accuracy", f"{self.min_accuracy} is above 1; accuracy is a share between 0 and 1")

    def bounds(self) -> dict[str, float]:
        """The bounds that are set, by name."""
        named = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: float(value) for name, value in named.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Constraints:
    """What may be used. None: anything. Names are compared without regard to case.

    `gpus` are GPU types (`H100`); `max_gpus` and `max_cost_per_hour_usd` are over all replicas; `models` are model ids, hub ids or
    names. `capacity` is how the hardware is paid for: `spot` drops hardware without a known spot price, `any` takes the cheaper of the
    two known prices.
    """

    gpus: tuple[str, ...] | None = None
    max_gpus: int | None = None
    max_cost_per_hour_usd: float | None = None
    frameworks: tuple[str, ...] | None = None
    quantizations: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    licences: tuple[str, ...] | None = None
    capacity: Capacity = "on_demand"

    def __post_init__(self) -> None:
        for name in ("gpus", "frameworks", "quantizations", "models", "licences"):
            if getattr(self, name) == ():
                raise InvalidRequestError(f"constraints.{name}", "an empty list allows nothing; name at least one or leave it out")
        if self.max_gpus is not None and self.max_gpus < 0:
            raise InvalidRequestError("constraints.max_gpus", f"{self.max_gpus} is negative; give 0 (no GPU) or more")
        _positive("constraints.max_cost_per_hour_usd", self.max_cost_per_hour_usd)
        if self.capacity not in get_args(Capacity):
            raise InvalidRequestError(
                "constraints.capacity", f"'{self.capacity}' is unknown; choose one of {', '.join(get_args(Capacity))}"
            )


@dataclass(frozen=True, slots=True)
class RecommendRequest:
    """One question. `sla` None: the use case's default bounds; given, only the bounds in it count.

    `weights` None: the defaults; otherwise a criterion that is not named weighs 0. `method` `pareto` keeps only what nothing
    else beats in latency, accuracy and cost at once. `top` bounds how many recommendations come back.
    """

    use_case: str
    load: Load = field(default_factory=Load)
    sla: Sla | None = None
    constraints: Constraints = field(default_factory=Constraints)
    weights: Mapping[str, float] | None = None
    method: Method = "topsis"
    kinds: tuple[RankableKind, ...] = ("measured", "published")
    top: int = 10

    def __post_init__(self) -> None:
        if not self.use_case:
            raise InvalidRequestError("use_case", "name the use case")
        validated_weights(self.weights)
        if self.method not in get_args(Method):
            raise InvalidRequestError("method", f"'{self.method}' is unknown; choose one of {', '.join(get_args(Method))}")
        strangers = sorted(set(self.kinds) - set(get_args(RankableKind)))
        if strangers or not self.kinds:
            raise InvalidRequestError("kinds", "only measured and published results are ranked; name one or both")
        if not 1 <= self.top <= MAX_TOP:
            raise InvalidRequestError("top", f"{self.top} is not possible; give 1 to {MAX_TOP}")

    @property
    def normalized_weights(self) -> dict[CriterionName, float]:
        """The weights of all five criteria, summing to 1."""
        return validated_weights(self.weights)
