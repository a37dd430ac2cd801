{#- A list of strings as SQL literals: ['a', 'b'] -> 'a', 'b' -#}
{% macro sql_list(values) -%}
    {%- for value in values -%}
        '{{ value | replace("'", "''") }}'{{ ", " if not loop.last }}
    {%- endfor -%}
{%- endmacro %}
