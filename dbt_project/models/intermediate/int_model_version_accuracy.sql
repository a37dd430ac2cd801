-- Accuracy of a model version: the mean over tasks of the newest result of each. Tasks are independent samples, so the standard
-- error of the mean is the root of the summed squares over their number.
with newest as (
    select distinct on (model_version_id, task) *
    from {{ ref('stg_quality_results') }}
    where kind in ({{ sql_list(var('rankable_kinds')) }})
    order by model_version_id asc, task asc, measured_at desc
)

select
    model_version_id,
    count(*) as task_count,
    avg(accuracy) as accuracy,
    case
        when bool_and(accuracy_stderr is not null)
            then sqrt(sum(accuracy_stderr * accuracy_stderr)) / count(*)
    end as accuracy_stderr
from newest
group by model_version_id
