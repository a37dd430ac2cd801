{#- Ranks start at 1, have no gaps, and follow the score: a better score never ranks lower. -#}
{% test dense_rank(model, column_name, score, partition_by) %}
    with expected as (
        select
            {{ partition_by }},
            {{ column_name }} as rank_given,
            dense_rank() over (partition by {{ partition_by }} order by {{ score }} desc) as rank_expected
        from {{ model }}
    )

    select *
    from expected
    where rank_given <> rank_expected
{% endtest %}
