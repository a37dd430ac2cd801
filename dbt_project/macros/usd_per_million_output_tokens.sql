{#- Price per hour / (output tokens per second x 3600) x 1,000,000; NULL when the price is unknown or nothing was produced. -#}
{% macro usd_per_million_output_tokens(usd_per_hour, output_tokens_per_s) -%}
    {{ usd_per_hour }} / nullif({{ output_tokens_per_s }} * 3600, 0) * 1000000
{%- endmacro %}
