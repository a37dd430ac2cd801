{#- What an operating point is ranked against: operating points of the same use case that were measured under the same pattern of
    requests with the same lengths. A shorter answer is done sooner, which says nothing about the deployment. -#}
{% macro comparison(relation) -%}
    jsonb_build_array({{ relation }}.use_case, {{ relation }}.workload, {{ relation }}.input_tokens, {{ relation }}.output_tokens)::text
{%- endmacro %}
