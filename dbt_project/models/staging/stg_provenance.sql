select
    provenance_id,
    tool,
    tool_version,
    source_uri,
    licence,
    recorded_at
from {{ source('catalog', 'provenance') }}
