"""The rows that recommendations are made of, as the marts give them. The columns are described in dbt_project/models/marts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Self
from uuid import UUID


@dataclass(frozen=True, slots=True)
class LoadPointRow:
    """One row of `marts.load_points`: the latest rankable measurement of one configuration."""

    config_id: str
    deployment_id: str
    model_id: str
    model_name: str
    hub_id: str | None
    licence: str | None
    params: int
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
    load_mode: str
    concurrency: int | None
    request_rate_per_s: float | None
    kind: str
    protocol: str
    measurement_id: UUID
    measured_at: datetime
    requests_completed: int
    requests_failed: int
    failure_rate: float
    ttft_p50_ms: float | None
    ttft_p90_ms: float | None
    ttft_p99_ms: float | None
    tpot_p50_ms: float | None
    tpot_p90_ms: float | None
    tpot_p99_ms: float | None
    itl_p90_ms: float | None
    e2e_p50_ms: float | None
    e2e_p90_ms: float | None
    e2e_p99_ms: float | None
    requests_per_s: float
    output_tokens_per_s: float
    accuracy: float | None
    accuracy_stderr: float | None
    on_demand_usd_per_hour: float | None
    spot_usd_per_hour: float | None
    price_source: str | None
    vram_required_bytes: int
    vram_available_bytes: int
    vram_parts: Mapping[str, Any]
    intervals: Mapping[str, Any]
    quality_flags: tuple[str, ...]
    tool: str
    tool_version: str
    source_uri: str

    @classmethod
    def from_mapping(cls, row: Mapping[str, Any]) -> Self:
        """The row that a database driver gives as a mapping; further columns are ignored. Raises KeyError for a missing one."""
        values = {name: row[name] for name in LOAD_POINT_COLUMNS}
        if not isinstance(values["measurement_id"], UUID):
            values["measurement_id"] = UUID(values["measurement_id"])
        values["quality_flags"] = tuple(values["quality_flags"])
        return cls(**values)


LOAD_POINT_COLUMNS: tuple[str, ...] = tuple(f.name for f in fields(LoadPointRow))


@dataclass(frozen=True, slots=True)
class UseCaseRow:
    """One row of `catalog.use_case_taxonomy`: what a use case is measured by, and what it asks for unless told otherwise."""

    use_case: str
    workloads: tuple[str, ...]
    default_rps: float
    default_input_tokens: int
    default_output_tokens: int
    sla_ttft_p90_ms: float
    sla_tpot_p90_ms: float
    sla_source: str = ""
