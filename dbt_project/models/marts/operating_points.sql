{{ config(indexes=[{'columns': ['use_case']}]) }}

-- Per use case, deployment and workload: the load point that serves the most requests per second within the use case's default
-- bounds. assets/rankings/operating_points.py chooses in the same order.
select distinct on (
    use_cases.use_case,
    load_points.deployment_id,
    load_points.workload,
    load_points.input_tokens,
    load_points.output_tokens
)
    load_points.*,
    use_cases.use_case,
    use_cases.sla_ttft_p90_ms,
    use_cases.sla_tpot_p90_ms,
    {{ usd_per_million_output_tokens('load_points.on_demand_usd_per_hour', 'load_points.output_tokens_per_s') }}
        as on_demand_usd_per_million_output_tokens,
    {{ usd_per_million_output_tokens('load_points.spot_usd_per_hour', 'load_points.output_tokens_per_s') }}
        as spot_usd_per_million_output_tokens
from {{ ref('load_points') }} as load_points
inner join {{ ref('stg_use_cases') }} as use_cases
    on use_cases.workloads ? load_points.workload
where
    load_points.requests_per_s > 0
    and load_points.ttft_p90_ms <= use_cases.sla_ttft_p90_ms
    and load_points.tpot_p90_ms <= use_cases.sla_tpot_p90_ms
order by
    use_cases.use_case asc,
    load_points.deployment_id asc,
    load_points.workload asc,
    load_points.input_tokens asc,
    load_points.output_tokens asc,
    load_points.requests_per_s desc,
    load_points.e2e_p90_ms asc nulls last,
    load_points.concurrency asc nulls last,
    load_points.config_id asc
