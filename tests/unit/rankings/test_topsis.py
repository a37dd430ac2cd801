"""TOPSIS against the worked example of its inventors, and the properties that any ranking must have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from assets.rankings.criteria import CRITERIA, DEFAULT_WEIGHTS, validated_weights
from assets.rankings.errors import InvalidRequestError
from assets.rankings.topsis import topsis

# C.-L. Hwang and K. Yoon, Multiple Attribute Decision Making, Springer 1981: choice of a fighter aircraft.
AIRCRAFT = [
    [2.0, 1500, 20000, 5.5, 5, 9],
    [2.5, 2700, 18000, 6.5, 3, 5],
    [1.8, 2000, 21000, 4.5, 7, 7],
    [2.2, 1800, 20000, 5.0, 5, 5],
]
AIRCRAFT_WEIGHTS = [0.2, 0.1, 0.1, 0.1, 0.2, 0.3]
AIRCRAFT_MAXIMIZE = [True, True, True, False, True, True]

Problem = tuple[list[list[float]], list[float], list[bool]]


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """A ranking problem with positive values, as the criteria have."""
    criteria = draw(st.integers(1, 5))
    value = st.floats(1e-3, 1e9)
    rows = draw(st.lists(st.lists(value, min_size=criteria, max_size=criteria), min_size=1, max_size=8))
    weights = draw(st.lists(st.floats(0, 1), min_size=criteria, max_size=criteria))
    return rows, weights, draw(st.lists(st.booleans(), min_size=criteria, max_size=criteria))


def test_the_fighter_aircraft_of_hwang_and_yoon() -> None:
    """The book gives the closeness to three digits, and the order A1, A3, A4, A2."""
    result = topsis(AIRCRAFT, AIRCRAFT_WEIGHTS, AIRCRAFT_MAXIMIZE)
    assert result.scores == pytest.approx([0.643, 0.268, 0.613, 0.312], abs=1e-3)
    assert result.ranks.tolist() == [1, 4, 2, 3]


@settings(max_examples=100)
@given(problems())
def test_scores_are_shares_and_ranks_follow_them(problem: Problem) -> None:
    result = topsis(*problem)
    assert ((result.scores >= 0) & (result.scores <= 1)).all()
    assert sorted(set(result.ranks.tolist())) == list(range(1, len(set(result.scores.tolist())) + 1))
    for a, b in zip(result.scores, result.ranks, strict=True):
        assert b == 1 + len({s for s in result.scores.tolist() if s > a})


@settings(max_examples=100)
@given(problems(), st.floats(1e-6, 1e6), st.data())
def test_the_unit_of_a_criterion_does_not_matter(problem: Problem, factor: float, data: st.DataObject) -> None:
    rows, weights, maximize = problem
    column = data.draw(st.integers(0, len(weights) - 1))
    scaled = np.array(rows)
    scaled[:, column] *= factor
    assert topsis(scaled, weights, maximize).scores == pytest.approx(topsis(rows, weights, maximize).scores, abs=1e-6)


@settings(max_examples=100)
@given(problems(), st.data())
def test_a_dominated_candidate_never_ranks_above_its_dominator(problem: Problem, data: st.DataObject) -> None:
    rows, weights, maximize = problem
    better = rows[0]
    shrink = data.draw(st.lists(st.floats(0.5, 1), min_size=len(better), max_size=len(better)))
    worse = [v * s if up else v / s for v, s, up in zip(better, shrink, maximize, strict=True)]
    ranks = topsis([*rows, worse], weights, maximize).ranks
    assert ranks[0] <= ranks[-1]


@settings(max_examples=50)
@given(problems(), st.data())
def test_a_criterion_that_is_unknown_for_one_is_left_out_for_all(problem: Problem, data: st.DataObject) -> None:
    rows, weights, maximize = problem
    assume(len(weights) > 1)
    column = data.draw(st.integers(0, len(weights) - 1))
    holed = np.array(rows)
    holed[data.draw(st.integers(0, len(rows) - 1)), column] = np.nan
    others = [i for i in range(len(weights)) if i != column]
    left = topsis(np.array(rows)[:, others], [weights[i] for i in others], [maximize[i] for i in others])
    result = topsis(holed, weights, maximize)
    assert result.scores == pytest.approx(left.scores, abs=1e-9)
    assert result.weights[column] == 0
    assert result.weights.sum() == pytest.approx(1.0 if sum(weights[i] for i in others) > 0 else 0.0)


@pytest.mark.parametrize("values", [[[3.0, 4.0]], [[3.0, 4.0]] * 3, [[0.0, 0.0]] * 2, [[np.nan, np.nan], [1.0, np.nan]]])
def test_candidates_that_do_not_differ_all_score_one(values: list[list[float]]) -> None:
    """One alone, equal ones, all zeros, nothing known: no division by zero, no false order."""
    result = topsis(values, [0.5, 0.5], [True, False])
    assert set(result.scores.tolist()) == {1.0}
    assert set(result.ranks.tolist()) == {1}


def test_no_candidates_is_an_empty_ranking() -> None:
    assert topsis(np.empty((0, 2)), [1, 1], [True, True]).scores.size == 0


def test_wrong_shapes_and_negative_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="one weight and one direction"):
        topsis([[1.0, 2.0]], [1.0], [True])
    with pytest.raises(ValueError, match="negative"):
        topsis([[1.0]], [-1.0], [True])


def test_weights_are_rescaled_and_missing_ones_weigh_nothing() -> None:
    assert validated_weights({"latency": 3, "cost": 1}) == {"accuracy": 0, "latency": 0.75, "throughput": 0, "cost": 0.25, "memory": 0}
    assert validated_weights(None) == DEFAULT_WEIGHTS
    assert sum(validated_weights({"latency": 1e308, "cost": 1e308}).values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("weights", "field"),
    [
        ({"latency": -1.0}, "weights.latency"),
        ({"latency": float("nan")}, "weights.latency"),
        ({"latency": 0.0, "cost": 0.0}, "weights"),
        ({}, "weights"),
        ({"speed": 1.0}, "weights"),
    ],
)
def test_impossible_weights_name_the_field(weights: dict[str, float], field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        validated_weights(weights)
    assert caught.value.field == field


def test_sql_and_python_rank_by_the_same_weights_and_directions() -> None:
    """The marts rank by the var of the dbt project, the API by the constants here."""
    project = Path(__file__).parents[3] / "dbt_project"
    assert yaml.safe_load((project / "dbt_project.yml").read_text())["vars"]["topsis_weights"] == DEFAULT_WEIGHTS
    sql = (project / "models/intermediate/int_ranking_criteria.sql").read_text()
    for criterion in CRITERIA:
        assert f"('{criterion.name}', {str(criterion.maximize).lower()}, " in sql
