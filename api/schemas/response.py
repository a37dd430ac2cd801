"""What a recommendation comes back as."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

CacheState = Literal["hit", "miss", "stale"]


class ModelName(BaseModel):
    """The model."""

    id: str
    name: str
    hub_id: str | None
    licence: str | None
    params: int


class Version(BaseModel):
    """A version of something."""

    name: str
    version: str


class Hardware(BaseModel):
    """What one replica runs on. `count` is 0 for a CPU host."""

    id: str
    gpu: str
    count: int


class Percentiles(BaseModel):
    """Percentiles over requests, milliseconds; null where not known."""

    p50: float | None
    p90: float | None
    p99: float | None


class OperatingPoint(BaseModel):
    """The measured load that each replica should be run at, and how it performs there."""

    workload: str
    input_tokens: int
    output_tokens: int
    load_mode: str
    concurrency: int | None = Field(description="Requests in flight on one replica, for a closed loop.")
    request_rate_per_s: float | None = Field(description="Offered rate on one replica, for an open loop.")
    rps_per_replica: float = Field(description="Requests per second that one replica completed.")
    ttft_ms: Percentiles
    tpot_ms: Percentiles
    latency_ms: Percentiles = Field(description="End to end, up to the last token.")
    output_tokens_per_s: float = Field(description="Of one replica.")
    accuracy: float | None


class Prices(BaseModel):
    """USD; null where the price is not known."""

    on_demand: float | None
    spot: float | None


class Cost(BaseModel):
    """What it costs. `capacity` names the price that was compared."""

    capacity: str | None
    per_hour_usd: Prices = Field(description="For all replicas.")
    per_million_output_tokens_usd: Prices = Field(description="At the operating point.")
    source: str | None


class Vram(BaseModel):
    """Device memory of one replica, bytes. On a CPU host: main memory."""

    required_bytes: int
    available_bytes: int
    parts: dict[str, int] = Field(description="What the requirement is made of, bytes over all devices: weights, KV cache and so on.")


class Headroom(BaseModel):
    """How far the operating point is inside one bound: `share` 0.25 means that a quarter of the bound is left."""

    bound: str
    limit: float
    value: float
    share: float


class Evidence(BaseModel):
    """The measurement that a recommendation stands on."""

    id: UUID
    kind: str
    protocol: str
    source: str = Field(description="Where the numbers come from: a file or an address.")
    tool: str
    measured_at: datetime
    requests: int = Field(description="Requests that completed.")
    requests_failed: int
    interval: dict[str, Any] = Field(description="Confidence intervals by metric: lower and upper end.")
    quality_flags: list[str]


class Recommendation(BaseModel):
    """One way to serve the load."""

    rank: int
    label: str = Field(description="In short, for people.", examples=["Qwen2.5-7B (4xH100)"])
    score: float = Field(description="TOPSIS closeness to the ideal, 0 to 1.")
    score_interval: tuple[float, float] | None = Field(description="The score over the confidence interval of the latency, where known.")
    model: ModelName
    version: str = Field(description="Id of the model version: model, quantization and weights revision.")
    quantization: str
    framework: Version
    hardware: Hardware
    replicas: int = Field(description="How many of them serve the load.")
    gpus: int = Field(description="GPUs over all replicas.")
    operating_point: OperatingPoint
    cost: Cost
    vram: Vram
    sla_headroom: list[Headroom] = Field(description="Tightest first.")
    binding_bound: str | None = Field(description="The bound with the least headroom.")
    pareto: bool = Field(description="Whether nothing else is better in latency, accuracy or cost without being worse in another.")
    criteria: dict[str, float | None] = Field(description="The values that were compared.")
    evidence: list[Evidence]


class Change(BaseModel):
    """One bound as asked and as it would have to be."""

    bound: str = Field(examples=["sla.latency_p90_ms"])
    asked: Any
    required: Any = Field(description="null: without this bound.")


class Relaxation(BaseModel):
    """The smallest change that makes something feasible (several where no single one is enough), and the best that it allows."""

    changes: list[Change]
    sla: dict[str, float] = Field(description="All bounds to send for this answer, the use case's own that stay included.")
    recommendation: Recommendation


class Metadata(BaseModel):
    """How the answer came about."""

    catalog_version: int
    candidates_considered: int = Field(description="Deployments under a workload of the use case; feasible + the sum of filtered_out.")
    feasible: int
    filtered_out: dict[str, int] = Field(description="How many candidates were left out, by reason.")
    workload: str | None = Field(
        description="The one workload under which all that was compared was measured: the closest to the lengths asked for. null: nothing."
    )
    input_tokens: int | None = Field(description="Mean tokens of a prompt of that workload.")
    output_tokens: int | None = Field(description="Mean tokens of an answer of that workload.")
    length_distance: float | None = Field(
        description="How far that is from the lengths asked for, or the use case's own: |ln(ratio)| of the input plus of the output tokens."
    )
    warning: str | None = Field(description="Says so when these lengths are more than a factor of 2 off.")
    rps: float = Field(description="The rate in force, asked for or the use case's own.")
    sla: dict[str, float] = Field(description="The bounds in force.")
    weights: dict[str, float] = Field(description="The weights in force, of the criteria that are known for all candidates; they sum to 1.")
    cache: CacheState = Field(description="`stale`: the database does not answer; this is for the last version that was read.")
    elapsed_ms: float


class RecommendResponse(BaseModel):
    """The recommendations, best first; when there are none, what would have to give."""

    recommendations: list[Recommendation]
    relaxations: list[Relaxation]
    metadata: Metadata
