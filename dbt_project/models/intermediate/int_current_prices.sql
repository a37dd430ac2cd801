-- One price per hardware config: the newest day of each offer, then the cheapest offer on demand.
with newest as (
    select distinct on (hardware_id, provider, region, instance) *
    from {{ ref('stg_hardware_prices') }}
    order by hardware_id asc, provider asc, region asc, instance asc, as_of desc
)

select distinct on (hardware_id)
    hardware_id,
    provider,
    region,
    instance,
    as_of,
    on_demand_usd_per_hour,
    spot_usd_per_hour,
    concat_ws(
        '; ',
        concat_ws(' ', provider, region, instance, to_char(as_of at time zone 'UTC', 'YYYY-MM-DD')),
        nullif(source, ''),
        nullif(note, '')
    ) as price_source
from newest
order by
    hardware_id asc,
    on_demand_usd_per_hour asc nulls last,
    spot_usd_per_hour asc nulls last,
    provider asc,
    region asc,
    instance asc
