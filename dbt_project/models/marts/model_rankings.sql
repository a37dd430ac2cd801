{{ config(indexes=[{'columns': ['use_case']}]) }}

select
    points.use_case,
    scores.score_rank,
    scores.score,
    scores.weights,
    points.config_id,
    points.deployment_id,
    points.model_id,
    points.model_name,
    points.model_version_id,
    points.quantization,
    points.framework,
    points.framework_version,
    points.hardware_id,
    points.gpu_type,
    points.gpu_count,
    points.workload,
    points.input_tokens,
    points.output_tokens,
    points.concurrency,
    points.request_rate_per_s,
    points.kind,
    points.protocol,
    points.measurement_id,
    points.measured_at,
    points.accuracy,
    points.ttft_p90_ms,
    points.tpot_p90_ms,
    points.e2e_p90_ms,
    points.requests_per_s,
    points.output_tokens_per_s,
    points.on_demand_usd_per_million_output_tokens,
    points.spot_usd_per_million_output_tokens,
    points.vram_required_bytes
from {{ ref('operating_points') }} as points
inner join {{ ref('int_topsis_scores') }} as scores
    on {{ comparison('points') }} = scores.comparison and points.config_id = scores.candidate
