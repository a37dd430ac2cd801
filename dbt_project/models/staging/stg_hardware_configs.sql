select
    hardware_id,
    gpu_type,
    gpu_count,
    memory_bytes_per_device,
    memory_bandwidth_bytes_per_s,
    compute_capability
from {{ source('catalog', 'hardware_configs') }}
