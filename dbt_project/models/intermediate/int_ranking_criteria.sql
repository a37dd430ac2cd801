-- The ranking problem in long form: one row per comparison, operating point and criterion. An unknown value is NULL.
select
    {{ comparison('points') }} as comparison,
    points.config_id as candidate,
    criteria.criterion,
    criteria.maximize,
    criteria.weight,
    criteria.criterion_value
from {{ ref('operating_points') }} as points
cross join lateral (
    values
    ('accuracy', true, {{ topsis_weight('accuracy') }}, points.accuracy),
    ('latency', false, {{ topsis_weight('latency') }}, points.e2e_p90_ms),
    ('throughput', true, {{ topsis_weight('throughput') }}, points.output_tokens_per_s),
    ('cost', false, {{ topsis_weight('cost') }}, points.on_demand_usd_per_million_output_tokens),
    ('memory', false, {{ topsis_weight('memory') }}, points.vram_required_bytes::double precision)
) as criteria (criterion, maximize, weight, criterion_value)
