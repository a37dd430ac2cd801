-- The one measurement that stands for a configuration: a full protocol before a provisional one, then the newest.
select distinct on (config_id) *
from {{ ref('int_rankable_results') }}
order by
    config_id asc,
    protocol in ({{ sql_list(var('provisional_protocols')) }}) asc,
    measured_at desc,
    repeat desc,
    measurement_id asc
