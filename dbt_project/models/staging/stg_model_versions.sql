select
    model_version_id,
    model_id,
    quantization,
    revision,
    weights_bytes,
    created_at
from {{ source('catalog', 'model_versions') }}
