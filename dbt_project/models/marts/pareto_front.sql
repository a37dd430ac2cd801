-- Operating points that no other one they are ranked against beats in latency, accuracy or cost without losing in another. A criterion
-- that is unknown for one of them is left out for all (made 0 for each, so that it decides nothing).
--
-- Not every pair is looked at. In the order of latency a point can only be beaten by an earlier one. The order is cut into slabs: over
-- all earlier slabs one running minimum tells whether something no less accurate was no dearer; pairs are compared within a slab only.
-- Points that are equal in all three are one vector: they do not beat each other.
{%- set slab_size = 128 %}
with rankings as (
    select
        *,
        {{ comparison('ranked') }} as comparison
    from {{ ref('model_rankings') }} as ranked
),

known as (
    select
        comparison,
        bool_and(e2e_p90_ms is not null) as latency_known,
        bool_and(accuracy is not null) as accuracy_known,
        bool_and(on_demand_usd_per_million_output_tokens is not null) as cost_known
    from rankings
    group by comparison
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
    from rankings
    inner join known on rankings.comparison = known.comparison
),

vectors as (
    select
        comparison,
        latency,
        inaccuracy,
        usd,
        row_number() over (partition by comparison order by latency asc, inaccuracy asc, usd asc) as place
    from points
    group by comparison, latency, inaccuracy, usd
),

slabbed as (
    select
        *,
        (place - 1) / {{ slab_size }} as slab
    from vectors
),

slabs as (
    select distinct
        comparison,
        slab
    from slabbed
),

-- for the vectors of each slab: the lowest cost of all that are in an earlier slab and no less accurate
against_earlier as (
    select
        slabs.slab as looked_at,
        slabbed.*,
        min(slabbed.usd) filter (where slabbed.slab < slabs.slab)
            over (partition by slabs.comparison, slabs.slab order by slabbed.inaccuracy asc)
            as least_usd_before
    from slabs
    inner join slabbed
        on slabs.comparison = slabbed.comparison and slabs.slab >= slabbed.slab
),

front as (
    select
        candidate.comparison,
        candidate.latency,
        candidate.inaccuracy,
        candidate.usd
    from against_earlier as candidate
    where
        candidate.slab = candidate.looked_at
        and (candidate.least_usd_before is null or candidate.usd < candidate.least_usd_before)
        and not exists (
            select 1
            from slabbed as rival
            where
                rival.comparison = candidate.comparison
                and rival.slab = candidate.slab
                and rival.place < candidate.place
                and rival.inaccuracy <= candidate.inaccuracy
                and rival.usd <= candidate.usd
        )
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
    points.input_tokens,
    points.output_tokens,
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
inner join front
    on
        points.comparison = front.comparison
        and points.latency = front.latency
        and points.inaccuracy = front.inaccuracy
        and points.usd = front.usd
