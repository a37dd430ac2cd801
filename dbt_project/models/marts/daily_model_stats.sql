-- Percentiles of different measurements cannot be averaged into a percentile, so each is given as its smallest, median and largest
-- value over the measurements of the day.
select
    versions.model_id,
    versions.quantization,
    configs.framework,
    configs.hardware_id,
    configs.workload,
    (results.measured_at at time zone 'UTC')::date as measured_on,
    count(*) as measurements,
    count(*) filter (where results.kind = 'measured') as measurements_measured,
    count(*) filter (where results.kind = 'published') as measurements_published,
    count(distinct results.config_id) as configurations,
    sum(results.requests_completed)::bigint as requests_completed,
    sum(results.requests_failed)::bigint as requests_failed,
    sum(results.requests_failed)::double precision / nullif(sum(results.requests_sent), 0)::double precision as failure_rate,
    {{ spread('results', 'ttft_p90_ms') }},
    {{ spread('results', 'tpot_p90_ms') }},
    {{ spread('results', 'e2e_p90_ms') }},
    {{ spread('results', 'requests_per_s') }},
    {{ spread('results', 'output_tokens_per_s') }}
from {{ ref('int_rankable_results') }} as results
inner join {{ ref('stg_benchmark_configs') }} as configs
    on results.config_id = configs.config_id
inner join {{ ref('stg_model_versions') }} as versions
    on configs.model_version_id = versions.model_version_id
group by
    versions.model_id,
    versions.quantization,
    configs.framework,
    configs.hardware_id,
    configs.workload,
    measured_on
