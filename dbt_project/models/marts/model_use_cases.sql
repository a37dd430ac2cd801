with measured as (
    select
        load_points.model_id,
        load_points.model_name,
        use_cases.use_case,
        load_points.workload,
        load_points.input_tokens,
        load_points.output_tokens,
        count(*) as load_points
    from {{ ref('load_points') }} as load_points
    inner join {{ ref('stg_use_cases') }} as use_cases
        on use_cases.workloads ? load_points.workload
    group by
        load_points.model_id,
        load_points.model_name,
        use_cases.use_case,
        load_points.workload,
        load_points.input_tokens,
        load_points.output_tokens
),

ranked as (
    select
        model_id,
        use_case,
        workload,
        input_tokens,
        output_tokens,
        count(*) as operating_points,
        max(score) as suitability,
        min(score_rank) as best_rank
    from {{ ref('model_rankings') }}
    group by model_id, use_case, workload, input_tokens, output_tokens
)

select
    measured.model_id,
    measured.model_name,
    measured.use_case,
    measured.workload,
    measured.input_tokens,
    measured.output_tokens,
    measured.load_points,
    coalesce(ranked.operating_points, 0) as operating_points,
    ranked.operating_points is not null as meets_sla,
    ranked.suitability,
    ranked.best_rank
from measured
left join ranked
    on measured.model_id = ranked.model_id and {{ comparison('measured') }} = {{ comparison('ranked') }}
