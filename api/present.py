"""From what the ranking returns to the document that the API answers with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.schemas import response as schema
from assets.rankings.response import Recommendation, RecommendResponse
from assets.rankings.rows import LoadPointRow


def document(answer: RecommendResponse, catalog_version: int) -> schema.RecommendResponse:
    """The answer, as computed now; the caller fills in how it was come by and how long that took."""
    compared = answer.compared
    return schema.RecommendResponse(
        recommendations=[_recommendation(found) for found in answer.recommendations],
        relaxations=[
            schema.Relaxation(
                changes=[schema.Change(bound=c.bound, asked=c.asked, required=c.required) for c in relaxation.changes],
                sla=dict(relaxation.sla),
                recommendation=_recommendation(relaxation.recommendation),
            )
            for relaxation in answer.relaxations
        ],
        metadata=schema.Metadata(
            catalog_version=catalog_version,
            candidates_considered=answer.considered,
            feasible=answer.feasible,
            filtered_out=dict(answer.filtered_out),
            workload=compared and compared.workload,
            input_tokens=compared and compared.input_tokens,
            output_tokens=compared and compared.output_tokens,
            length_distance=compared and compared.distance,
            warning=compared and compared.warning,
            rps=answer.rps,
            sla=dict(answer.sla),
            weights={str(name): weight for name, weight in answer.weights.items()},
            cache="miss",
            elapsed_ms=0.0,
        ),
    )


def label(row: LoadPointRow) -> str:
    """A deployment in short: `Qwen2.5-7B (4xH100)`, or `dyno-82m (cpu)` where there is no GPU."""
    hardware = f"{row.gpu_count}x{row.gpu_type}" if row.gpu_count else row.gpu_type
    return f"{row.model_name} ({hardware})"


def _recommendation(found: Recommendation) -> schema.Recommendation:
    row = found.operating_point
    return schema.Recommendation(
        rank=found.rank,
        label=label(row),
        score=found.score,
        score_interval=found.score_interval,
        model=schema.ModelName(id=row.model_id, name=row.model_name, hub_id=row.hub_id, licence=row.licence, params=row.params),
        version=row.model_version_id,
        quantization=row.quantization,
        framework=schema.Version(name=row.framework, version=row.framework_version),
        hardware=schema.Hardware(id=row.hardware_id, gpu=row.gpu_type, count=row.gpu_count),
        replicas=found.replicas,
        gpus=found.gpus,
        operating_point=_operating_point(row),
        cost=schema.Cost(
            capacity=found.cost.capacity,
            per_hour_usd=schema.Prices(on_demand=found.cost.on_demand_per_hour_usd, spot=found.cost.spot_per_hour_usd),
            per_million_output_tokens_usd=schema.Prices(
                on_demand=found.cost.on_demand_per_million_output_tokens_usd, spot=found.cost.spot_per_million_output_tokens_usd
            ),
            source=row.price_source,
        ),
        vram=schema.Vram(
            required_bytes=row.vram_required_bytes, available_bytes=row.vram_available_bytes, parts=_over_all_devices(row.vram_parts)
        ),
        sla_headroom=[schema.Headroom(bound=h.bound, limit=h.limit, value=h.value, share=h.share) for h in found.sla_headroom],
        binding_bound=found.binding_bound,
        pareto=found.pareto,
        criteria={str(name): value for name, value in found.criteria.items()},
        evidence=[_evidence(row)],
    )


def _operating_point(row: LoadPointRow) -> schema.OperatingPoint:
    return schema.OperatingPoint(
        workload=row.workload,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        load_mode=row.load_mode,
        concurrency=row.concurrency,
        request_rate_per_s=row.request_rate_per_s,
        rps_per_replica=row.requests_per_s,
        ttft_ms=schema.Percentiles(p50=row.ttft_p50_ms, p90=row.ttft_p90_ms, p99=row.ttft_p99_ms),
        tpot_ms=schema.Percentiles(p50=row.tpot_p50_ms, p90=row.tpot_p90_ms, p99=row.tpot_p99_ms),
        latency_ms=schema.Percentiles(p50=row.e2e_p50_ms, p90=row.e2e_p90_ms, p99=row.e2e_p99_ms),
        output_tokens_per_s=row.output_tokens_per_s,
        accuracy=row.accuracy,
    )


def _evidence(row: LoadPointRow) -> schema.Evidence:
    return schema.Evidence(
        id=row.measurement_id,
        kind=row.kind,
        protocol=row.protocol,
        source=row.source_uri,
        tool=f"{row.tool} {row.tool_version}",
        measured_at=row.measured_at,
        requests=row.requests_completed,
        requests_failed=row.requests_failed,
        interval=dict(row.intervals),
        quality_flags=list(row.quality_flags),
    )


def _over_all_devices(parts: Mapping[str, Any]) -> dict[str, int]:
    """The catalog keeps the parts of one device, with the number of devices and per-device sums beside them (assets/models/vram.py)."""
    devices = int(parts.get("devices", 1))
    return {name: int(size) * devices for name, size in parts.items() if name != "devices" and not name.endswith("_per_device")}
