select
    model_version_id,
    task,
    measured_at,
    kind,
    accuracy,
    accuracy_stderr,
    samples
from {{ source('catalog', 'quality_results') }}
