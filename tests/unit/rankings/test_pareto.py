"""The Pareto front against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.rankings.pareto import pareto_front


@settings(max_examples=100)
@given(st.data())
def test_front_is_exactly_what_nothing_dominates(data: st.DataObject) -> None:
    criteria = data.draw(st.integers(1, 4))
    # few different values, so that ties and equal rows come up
    row = st.lists(st.integers(0, 4).map(float), min_size=criteria, max_size=criteria)
    rows = data.draw(st.lists(row, max_size=20))
    maximize = data.draw(st.lists(st.booleans(), min_size=criteria, max_size=criteria))
    signs = [1 if up else -1 for up in maximize]

    def dominates(a: list[float], b: list[float]) -> bool:
        gains = [s * (x - y) for s, x, y in zip(signs, a, b, strict=True)]
        return min(gains) >= 0 and max(gains) > 0

    expected = [not any(dominates(other, this) for other in rows) for this in rows]
    assert pareto_front(np.array(rows).reshape(len(rows), criteria), maximize).tolist() == expected


def test_unknown_criteria_are_left_out_for_all() -> None:
    assert pareto_front([[1.0, 5.0], [2.0, np.nan]], [False, False]).tolist() == [True, False]
    assert pareto_front([[np.nan], [1.0]], [False]).tolist() == [True, True]


def test_a_direction_is_needed_for_each_criterion() -> None:
    with pytest.raises(ValueError, match="one direction for each column"):
        pareto_front([[1.0, 2.0]], [True])
