select
    config_id,
    deployment_id,
    model_version_id,
    hardware_id,
    framework,
    framework_version,
    tensor_parallel,
    workload,
    input_tokens,
    output_tokens,
    load_mode,
    concurrency,
    request_rate_per_s,
    vram_required_bytes,
    vram_available_bytes,
    vram_parts
from {{ source('catalog', 'benchmark_configs') }}
