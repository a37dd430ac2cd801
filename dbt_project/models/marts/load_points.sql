{{ config(indexes=[{'columns': ['workload']}, {'columns': ['deployment_id']}]) }}

select
    configs.config_id,
    configs.deployment_id,
    models.model_id,
    models.model_name,
    models.hub_id,
    models.licence,
    models.params,
    versions.model_version_id,
    versions.quantization,
    configs.framework,
    configs.framework_version,
    configs.hardware_id,
    hardware.gpu_type,
    hardware.gpu_count,
    configs.workload,
    configs.input_tokens,
    configs.output_tokens,
    configs.load_mode,
    configs.concurrency,
    configs.request_rate_per_s,
    measurements.kind,
    measurements.protocol,
    measurements.measurement_id,
    measurements.measured_at,
    measurements.requests_completed,
    measurements.requests_failed,
    measurements.failure_rate,
    measurements.ttft_p50_ms,
    measurements.ttft_p90_ms,
    measurements.ttft_p99_ms,
    measurements.tpot_p50_ms,
    measurements.tpot_p90_ms,
    measurements.tpot_p99_ms,
    measurements.itl_p90_ms,
    measurements.e2e_p50_ms,
    measurements.e2e_p90_ms,
    measurements.e2e_p99_ms,
    measurements.requests_per_s,
    measurements.output_tokens_per_s,
    quality.accuracy,
    quality.accuracy_stderr,
    prices.on_demand_usd_per_hour,
    prices.spot_usd_per_hour,
    prices.price_source,
    configs.vram_required_bytes,
    configs.vram_available_bytes,
    configs.vram_parts,
    measurements.intervals,
    measurements.quality_flags,
    provenance.tool,
    provenance.tool_version,
    provenance.source_uri
from {{ ref('int_latest_measurements') }} as measurements
inner join {{ ref('stg_benchmark_configs') }} as configs
    on measurements.config_id = configs.config_id
inner join {{ ref('stg_model_versions') }} as versions
    on configs.model_version_id = versions.model_version_id
inner join {{ ref('stg_models') }} as models
    on versions.model_id = models.model_id
inner join {{ ref('stg_hardware_configs') }} as hardware
    on configs.hardware_id = hardware.hardware_id
inner join {{ ref('stg_provenance') }} as provenance
    on measurements.provenance_id = provenance.provenance_id
left join {{ ref('int_current_prices') }} as prices
    on configs.hardware_id = prices.hardware_id
left join {{ ref('int_model_version_accuracy') }} as quality
    on versions.model_version_id = quality.model_version_id
