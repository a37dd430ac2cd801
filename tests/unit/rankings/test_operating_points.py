"""Operating points: which load point counts, what is left of each bound, how many replicas, what it costs."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.rankings.operating_points import (
    headroom,
    operating_point,
    replicas_for,
    usd_per_million_output_tokens,
)
from tests.unit.rankings.rows import load_point


def test_the_fastest_load_point_within_the_bounds_counts() -> None:
    rows = [
        load_point(config_id="slow", requests_per_s=1.0, ttft_p90_ms=100.0),
        load_point(config_id="at the bound", requests_per_s=3.0, ttft_p90_ms=500.0),
        load_point(config_id="over the bound", requests_per_s=4.0, ttft_p90_ms=500.1),
        load_point(config_id="not measured", requests_per_s=9.0, ttft_p90_ms=None),
        load_point(config_id="too inaccurate", requests_per_s=9.0, ttft_p90_ms=1.0, accuracy=0.1),
    ]
    found = operating_point(rows, {"ttft_p90_ms": 500.0, "min_accuracy": 0.5})
    assert found is not None
    assert found.config_id == "at the bound"
    assert operating_point(rows, {"ttft_p90_ms": 1.0}) is not None
    assert operating_point(rows, {"ttft_p90_ms": 0.5}) is None


def test_ties_go_to_the_lower_latency_then_the_lower_concurrency() -> None:
    rows = [
        load_point(config_id="c", e2e_p90_ms=900.0, concurrency=8),
        load_point(config_id="b", e2e_p90_ms=800.0, concurrency=8),
        load_point(config_id="a", e2e_p90_ms=800.0, concurrency=16),
    ]
    found = operating_point(rows, {})
    assert found is not None
    assert found.config_id == "b"


def test_headroom_is_a_share_of_the_bound_and_the_tightest_comes_first() -> None:
    room = headroom(
        load_point(ttft_p90_ms=60.0, tpot_p90_ms=15.0, accuracy=0.6), {"ttft_p90_ms": 120, "tpot_p90_ms": 20, "min_accuracy": 0.5}
    )
    assert [(h.bound, round(h.share, 6)) for h in room] == [("min_accuracy", 0.2), ("tpot_p90_ms", 0.25), ("ttft_p90_ms", 0.5)]


@settings(max_examples=100)
@given(st.floats(0.01, 1e4), st.floats(0.01, 1e3))
def test_replicas_serve_the_load_and_one_less_would_not(rps: float, per_replica: float) -> None:
    replicas = replicas_for(rps, per_replica)
    assert replicas * per_replica >= rps * (1 - 1e-8)
    assert replicas == 1 or (replicas - 1) * per_replica < rps


@given(st.integers(1, 10_000), st.floats(0.01, 1e3))
def test_a_load_of_whole_replicas_takes_no_extra_one(replicas: int, per_replica: float) -> None:
    """Floating-point noise in the quotient must not buy another GPU."""
    assert replicas_for(replicas * per_replica, per_replica) == replicas


def test_rates_of_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        replicas_for(0, 1)


def test_cost_of_a_million_output_tokens() -> None:
    """3.60 USD an hour at 100 tokens per second: 360,000 tokens an hour, 10 USD a million."""
    assert math.isclose(usd_per_million_output_tokens(3.6, 100) or 0, 10.0)
    assert usd_per_million_output_tokens(None, 100) is None
    assert usd_per_million_output_tokens(3.6, 0) is None
