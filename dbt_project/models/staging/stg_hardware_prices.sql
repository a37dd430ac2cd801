select
    hardware_id,
    provider,
    region,
    instance,
    as_of,
    on_demand_usd_per_hour,
    spot_usd_per_hour,
    note,
    source
from {{ source('catalog', 'hardware_prices') }}
