select
    use_case,
    title,
    description,
    workloads,
    default_rps,
    default_input_tokens,
    default_output_tokens,
    sla_ttft_p90_ms,
    sla_tpot_p90_ms,
    sla_source
from {{ source('catalog', 'use_case_taxonomy') }}
