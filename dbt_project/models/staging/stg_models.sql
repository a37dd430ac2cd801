select
    model_id,
    name as model_name,
    hub_id,
    licence,
    architecture,
    params,
    active_params,
    max_context_tokens,
    source,
    registered_at,
    updated_at
from {{ source('catalog', 'models') }}
