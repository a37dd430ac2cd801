{#- The version of everything that the API reads grows by one when the marts may have changed; cache keys carry it.
    One statement, so that concurrent builds cannot lose a step. -#}
{% macro bump_catalog_version() -%}
    {% if execute and flags.WHICH in ('build', 'run') %}
        insert into catalog.catalog_state (singleton, version, updated_at)
        values (true, 1, now())
        on conflict (singleton) do update
            set version = catalog_state.version + 1, updated_at = excluded.updated_at
    {% endif %}
{%- endmacro %}
