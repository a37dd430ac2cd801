{{ config(meta={'dagster': {'ref': {'name': 'pareto_front'}}}) }}

with shown as (
    select measurement_id from {{ ref('load_points') }}
    union
    select measurement_id from {{ ref('operating_points') }}
    union
    select measurement_id from {{ ref('model_rankings') }}
    union
    select measurement_id from {{ ref('pareto_front') }}
)

select
    results.measurement_id,
    results.kind
from shown
inner join {{ source('catalog', 'benchmark_results') }} as results
    on shown.measurement_id = results.measurement_id
where results.kind not in ('measured', 'published')
