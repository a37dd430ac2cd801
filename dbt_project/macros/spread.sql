{#- Smallest, median and largest value of a column over the rows of a group. -#}
{% macro spread(relation, metric) -%}
    min({{ relation }}.{{ metric }}) as {{ metric }}_min,
    percentile_cont(0.5) within group (order by {{ relation }}.{{ metric }}) as {{ metric }}_median,
    max({{ relation }}.{{ metric }}) as {{ metric }}_max
{%- endmacro %}
