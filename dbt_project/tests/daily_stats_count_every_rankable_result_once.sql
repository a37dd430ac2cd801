{{ config(meta={'dagster': {'ref': {'name': 'daily_model_stats'}}}) }}

with counted as (
    select coalesce(sum(measurements), 0) as measurements from {{ ref('daily_model_stats') }}
),

expected as (
    select count(*) as measurements from {{ ref('int_rankable_results') }}
)

select
    counted.measurements as counted,
    expected.measurements as expected
from counted
cross join expected
where counted.measurements <> expected.measurements
