"""What a recommendation is asked with. Unknown fields, numbers given as text and values out of range are refused."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from assets.rankings import request as rankings
from assets.rankings.request import MAX_TOP, Capacity, Method, RankableKind

# The upper ends are far beyond anything real; they keep arithmetic on the values finite.
Milliseconds = Annotated[float, Field(strict=True, ge=0.001, le=1e9, allow_inf_nan=False)]
Tokens = Annotated[int, Field(strict=True, ge=1, le=10_000_000)]
Weight = Annotated[float, Field(strict=True, ge=0, le=1e6, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Names = Annotated[list[Name], Field(min_length=1, max_length=100)]

# The example of the API: a chatbot at 30 requests a second, 512 tokens in, 90 % of the answers complete within 300 ms.
EXAMPLE: dict[str, Any] = {
    "use_case": "chatbot",
    "load": {"rps": 30, "input_tokens": 512},
    "sla": {"latency_p90_ms": 300},
}
EXAMPLE_CONSTRAINED: dict[str, Any] = {
    "use_case": "rag",
    "load": {"rps": 5, "input_tokens": 4096, "output_tokens": 256},
    "sla": {"ttft_p90_ms": 2000, "tpot_p90_ms": 100},
    "constraints": {"gpus": ["H100", "H200"], "max_cost_per_hour_usd": 60, "frameworks": ["vllm"], "capacity": "any"},
    "weights": {"accuracy": 0.3, "latency": 0.2, "cost": 0.5},
    "method": "pareto",
    "top": 5,
}


class Strict(BaseModel):
    """A part of the request: unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")


class Load(Strict):
    """The traffic to be served."""

    rps: Annotated[float, Field(strict=True, gt=0, le=1e6, allow_inf_nan=False)] | None = Field(
        None, description="Requests per second over all replicas. Default: the use case's rate."
    )
    input_tokens: Tokens | None = Field(
        None, description="Mean tokens of a prompt. The closest lengths that were measured are compared. Default: the use case's."
    )
    output_tokens: Tokens | None = Field(
        None, description="Mean tokens of an answer. The closest lengths that were measured are compared. Default: the use case's."
    )


class Sla(Strict):
    """Bounds that must be met: upper bounds in milliseconds; `latency` is end to end, up to the last token."""

    ttft_p50_ms: Milliseconds | None = Field(None, description="Median time to first token.")
    ttft_p90_ms: Milliseconds | None = Field(None, description="90th percentile of the time to first token.")
    ttft_p99_ms: Milliseconds | None = Field(None, description="99th percentile of the time to first token.")
    tpot_p50_ms: Milliseconds | None = Field(None, description="Median time per output token after the first.")
    tpot_p90_ms: Milliseconds | None = Field(None, description="90th percentile of the time per output token after the first.")
    tpot_p99_ms: Milliseconds | None = Field(None, description="99th percentile of the time per output token after the first.")
    itl_p90_ms: Milliseconds | None = Field(None, description="90th percentile of the gaps between tokens.")
    latency_p50_ms: Milliseconds | None = Field(None, description="Median end-to-end latency.")
    latency_p90_ms: Milliseconds | None = Field(None, description="90th percentile of the end-to-end latency.")
    latency_p99_ms: Milliseconds | None = Field(None, description="99th percentile of the end-to-end latency.")
    min_accuracy: Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="Smallest accuracy, a share of 1."
    )


class Constraints(Strict):
    """What may be used. Names are compared without regard to case; a list that is left out allows everything."""

    gpus: Names | None = Field(None, description="GPU types or hardware ids, for example `H100` or `h100-80gb-x4`.")
    max_gpus: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] | None = Field(None, description="GPUs over all replicas.")
    max_cost_per_hour_usd: Annotated[float, Field(strict=True, ge=1e-6, le=1e9, allow_inf_nan=False)] | None = Field(
        None, description="Cost over all replicas, USD per hour."
    )
    frameworks: Names | None = Field(None, description="Inference engines, for example `vllm`.")
    quantizations: Names | None = Field(None, description="For example `fp8`.")
    models: Names | None = Field(None, description="Model ids, hub ids or names.")
    licences: Names | None = Field(None, description="Licences as the hub names them, for example `apache-2.0`.")
    capacity: Capacity = Field(
        "on_demand", description="How the hardware is paid for. `any` takes the cheaper price; `spot` needs a known spot price."
    )


class Weights(Strict):
    """How much each criterion counts. Any scale: they are rescaled to sum 1. One that is left out counts nothing."""

    accuracy: Weight | None = Field(None, description="Share of correct answers, more is better.")
    latency: Weight | None = Field(None, description="90th percentile of the end-to-end latency, less is better.")
    throughput: Weight | None = Field(None, description="Output tokens per second of one deployment, more is better.")
    cost: Weight | None = Field(None, description="USD per hour for the load, all replicas, less is better.")
    memory: Weight | None = Field(None, description="Device memory that one deployment needs, less is better.")


class RecommendRequest(Strict):
    """One question: which model, engine, quantization and hardware should serve this load?"""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE, EXAMPLE_CONSTRAINED]})

    use_case: Name = Field(description="A use case of GET /api/v1/use-cases.")
    load: Load = Field(default_factory=Load)
    sla: Sla | None = Field(None, description="Given: only the bounds in it count. Left out: the use case's own bounds.")
    constraints: Constraints = Field(default_factory=Constraints)
    weights: Weights | None = Field(None, description="Left out: accuracy 0.3, latency 0.25, throughput 0.2, cost 0.15, memory 0.1.")
    method: Method = Field("topsis", description="`pareto` keeps only what nothing else beats in latency, accuracy and cost at once.")
    kinds: Annotated[list[RankableKind], Field(min_length=1, max_length=2)] = Field(
        ["measured", "published"],
        description="Whose results count: our own measurements, results that others published, or both.",
    )
    top: Annotated[int, Field(strict=True, ge=1, le=MAX_TOP)] = Field(10, description="How many recommendations to return at most.")

    def terms(self) -> rankings.RecommendRequest:
        """The request as the ranking takes it. Raises InvalidRequestError for what only the ranking can judge."""
        allowed = self.constraints
        return rankings.RecommendRequest(
            use_case=self.use_case,
            load=rankings.Load(**self.load.model_dump()),
            sla=None if self.sla is None else rankings.Sla(**self.sla.model_dump()),
            constraints=rankings.Constraints(
                gpus=_tuple(allowed.gpus),
                max_gpus=allowed.max_gpus,
                max_cost_per_hour_usd=allowed.max_cost_per_hour_usd,
                frameworks=_tuple(allowed.frameworks),
                quantizations=_tuple(allowed.quantizations),
                models=_tuple(allowed.models),
                licences=_tuple(allowed.licences),
                capacity=allowed.capacity,
            ),
            weights=None if self.weights is None else self.weights.model_dump(exclude_none=True),
            method=self.method,
            kinds=tuple(self.kinds),
            top=self.top,
        )


def _tuple(names: list[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)
