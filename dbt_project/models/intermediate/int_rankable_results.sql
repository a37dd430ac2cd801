-- Measurements that say something true about the deployment: real, mostly answered, tokens counted, answers as long as asked, prompts not
-- from a cache, and the engine the limit rather than the load generator.
select results.*
from {{ ref('stg_benchmark_results') }} as results
where
    results.kind in ({{ sql_list(var('rankable_kinds')) }})
    and results.requests_completed > 0
    and results.failure_rate <= {{ var('max_failure_rate') }}
    and not results.quality_flags ?| array[{{ sql_list(var('disqualifying_flags')) }}]
