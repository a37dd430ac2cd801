-- Operating points that no other one of the use case beats in latency, accuracy or cost without losing in anrival. A criterion that
-- is unknown for one of them is left out for all of the use case (coalesced to 0 for each, so that it decides nothing).
with known as (
    select
        use_case,
        bool_and(e2e_p90_ms is not null) as latency_known,
        bool_and(accuracy is not null) as accuracy_known,
        bool_and(on_demand_usd_per_million_output_tokens is not null) as cost_known
    from {{ ref('model_rankings') }}
    group by use_case
),

points as (
    select
        rankings.*,
        known.latency_known,
        known.accuracy_known,
        known.cost_known,
        case when known.latency_known then rankings.e2e_p90_ms else 0 end as latency,
        case when known.accuracy_known then -rankings.accuracy else 0 end as inaccuracy,
        case when known.cost_known then rankings.on_demand_usd_per_million_output_tokens else 0 end as usd
    from {{ ref('model_rankings') }} as rankings
    inner join known on rankings.use_case = known.use_case
)

select
    points.use_case,
    points.config_id,
    points.deployment_id,
    points.model_id,
    points.model_name,
    points.quantization,
    points.framework,
    points.hardware_id,
    points.workload,
    points.concurrency,
    points.request_rate_per_s,
    points.measurement_id,
    points.e2e_p90_ms,
    points.accuracy,
    points.on_demand_usd_per_million_output_tokens,
    points.latency_known,
    points.accuracy_known,
    points.cost_known,
    points.score,
    points.score_rank
from points
where not exists (
    select 1
    from points as rival
    where
        rival.use_case = points.use_case
        and rival.latency <= points.latency
        and rival.inaccuracy <= points.inaccuracy
        and rival.usd <= points.usd
        and (rival.latency < points.latency or rival.inaccuracy < points.inaccuracy or rival.usd < points.usd)
)
