{#- The weight of a ranking criterion from the var topsis_weights; a criterion that is missing there is an error, not a weight of 0. -#}
{% macro topsis_weight(criterion) -%}
    {%- set weights = var('topsis_weights') -%}
    {%- if criterion not in weights -%}
        {{ exceptions.raise_compiler_error("the var topsis_weights has no weight for " ~ criterion) }}
    {%- endif -%}
    {{ weights[criterion] }}::double precision
{%- endmacro %}
