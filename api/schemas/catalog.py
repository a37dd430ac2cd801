"""Models, rankings and use cases as the API gives them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class FromRow(BaseModel):
    """Made from a database row; what it does not name is left out."""

    model_config = ConfigDict(extra="ignore")


class ModelVersion(FromRow):
    """Model x quantization x weights revision."""

    model_version_id: str
    quantization: str
    revision: str
    weights_bytes: int | None
    created_at: datetime
    results: dict[str, int] = Field(description="Number of results by kind: measured, published, estimated, simulated.")


class Model(FromRow):
    """A registered model."""

    model_id: str
    name: str
    hub_id: str | None
    licence: str | None
    architecture: str
    params: int
    active_params: int
    max_context_tokens: int
    registered_at: datetime
    measured: bool = Field(description="Whether Dyno itself has measured it.")
    results: int = Field(description="Number of results of all kinds and versions.")
    versions: list[ModelVersion]


class ModelUseCase(FromRow):
    """How a model does in a use case, under one of the workloads that stand for it."""

    use_case: str
    workload: str
    input_tokens: int
    output_tokens: int
    load_points: int
    operating_points: int
    meets_sla: bool = Field(description="Whether some deployment of it meets the use case's own bounds.")
    suitability: float | None = Field(description="Its best score in the ranking of this workload and these lengths, 0 to 1.")
    best_rank: int | None


class ModelDetail(Model):
    """A registered model with the facts of its architecture."""

    facts: dict[str, Any]
    source: str
    updated_at: datetime
    use_cases: list[ModelUseCase] | None = Field(description="null until the rankings have been built.")


class ModelPage(BaseModel):
    """A page of models, by id."""

    items: list[Model]
    total: int
    limit: int
    offset: int


class Ranking(FromRow):
    """One deployment's place in the ranking of a use case, at its best load point within the use case's bounds.

    Ranked against one another: those of the same workload, input tokens and output tokens.
    """

    use_case: str
    score_rank: int = Field(description="1 is the best of its workload and lengths.")
    score: float = Field(description="TOPSIS closeness to the ideal, 0 to 1.")
    weights: dict[str, float] = Field(description="The criteria that were known for all, with their weights.")
    config_id: str
    deployment_id: str
    model_id: str
    model_name: str
    model_version_id: str
    quantization: str
    framework: str
    framework_version: str
    hardware_id: str
    gpu_type: str
    gpu_count: int
    workload: str
    input_tokens: int
    output_tokens: int
    concurrency: int | None
    request_rate_per_s: float | None
    kind: str
    protocol: str
    measurement_id: UUID
    measured_at: datetime
    accuracy: float | None
    ttft_p90_ms: float | None
    tpot_p90_ms: float | None
    e2e_p90_ms: float | None
    requests_per_s: float
    output_tokens_per_s: float
    on_demand_usd_per_million_output_tokens: float | None
    spot_usd_per_million_output_tokens: float | None
    vram_required_bytes: int


class RankingPage(BaseModel):
    """A page of the rankings of a use case: one workload with its lengths after the other, each best first."""

    items: list[Ranking]
    total: int
    limit: int
    offset: int
    catalog_version: int


class UseCase(FromRow):
    """A use case: the workloads that stand for it, its load and its bounds unless a request says otherwise."""

    use_case: str
    title: str
    description: str
    workloads: list[str]
    default_rps: float
    default_input_tokens: int
    default_output_tokens: int
    sla_ttft_p90_ms: float
    sla_tpot_p90_ms: float
    sla_source: str


class UseCases(BaseModel):
    """All use cases."""

    items: list[UseCase]


class Part(BaseModel):
    """One thing that the API depends on."""

    ok: bool
    required: bool = Field(description="Whether the API cannot answer without it.")
    detail: str


class Readiness(BaseModel):
    """Whether the API can answer, part by part."""

    ready: bool
    parts: dict[str, Part]


class Liveness(BaseModel):
    """The process is alive."""

    status: str = "alive"
