{{ config(meta={'dagster': {'ref': {'name': 'model_rankings'}}}) }}

with sums as (
    select
        rankings.use_case,
        rankings.config_id,
        sum(weight.value::double precision) as total
    from {{ ref('model_rankings') }} as rankings
    cross join lateral jsonb_each_text(rankings.weights) as weight (criterion, value)
    group by rankings.use_case, rankings.config_id
)

select *
from sums
where abs(total - 1) > 1e-9
