-- TOPSIS (C.-L. Hwang and K. Yoon, Multiple Attribute Decision Making, Springer 1981) with vector normalization, for any number of
-- comparisons and criteria at once. assets/rankings/topsis.py computes the same in Python; a test compares the two.

-- a criterion that is unknown for one candidate is left out for all
with known as (
    select
        comparison,
        criterion
    from {{ ref('int_ranking_criteria') }}
    group by comparison, criterion
    having bool_and(criterion_value is not null) and min(weight) > 0
),

-- the weights of the criteria that are left, rescaled to sum 1
rescaled as (
    select
        problem.comparison,
        problem.candidate,
        problem.criterion,
        problem.maximize,
        problem.criterion_value,
        problem.weight
        / sum(problem.weight) over (partition by problem.comparison, problem.candidate) as weight
    from {{ ref('int_ranking_criteria') }} as problem
    inner join known
        on problem.comparison = known.comparison and problem.criterion = known.criterion
),

weighted as (
    select
        *,
        weight * coalesce(
            criterion_value
            / nullif(sqrt(sum(criterion_value * criterion_value) over (partition by comparison, criterion)), 0),
            0
        ) as weighted_value
    from rescaled
),

ideals as (
    select
        *,
        case when maximize then max(weighted_value) over alike else min(weighted_value) over alike end as best,
        case when maximize then min(weighted_value) over alike else max(weighted_value) over alike end as worst
    from weighted
    window alike as (partition by comparison, criterion)
),

distances as (
    select
        comparison,
        candidate,
        sqrt(sum((weighted_value - best) * (weighted_value - best))) as distance_to_best,
        sqrt(sum((weighted_value - worst) * (weighted_value - worst))) as distance_to_worst,
        jsonb_object_agg(criterion, weight) as weights
    from ideals
    group by comparison, candidate
),

candidates as (
    select distinct
        comparison,
        candidate
    from {{ ref('int_ranking_criteria') }}
),

-- candidates that do not differ in anything that counts all score 1; rounding makes them tie despite floating-point noise
scores as (
    select
        candidates.comparison,
        candidates.candidate,
        distances.distance_to_best,
        distances.distance_to_worst,
        coalesce(distances.weights, '{}'::jsonb) as weights,
        coalesce(
            round(
                (
                    distances.distance_to_worst
                    / nullif(distances.distance_to_best + distances.distance_to_worst, 0)
                )::numeric,
                12
            )::double precision,
            1
        ) as score
    from candidates
    left join distances
        on candidates.comparison = distances.comparison and candidates.candidate = distances.candidate
)

select
    comparison,
    candidate,
    distance_to_best,
    distance_to_worst,
    weights,
    score,
    dense_rank() over (partition by comparison order by score desc) as score_rank
from scores
