"""The search finds the step between the loads that meet their objectives and those that do not, in few probes."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.benchmark.bench_load import Load, at_rate
from assets.benchmark.load.arrivals import RateProfile
from assets.benchmark.load.find_max import RESOLUTION, find_max
from assets.benchmark.load.objectives import Objective, ObjectiveError, goodput_per_s, missed, parse_objectives
from assets.benchmark.load.statistics import Asked, load_statistics
from tests.unit.benchmark.test_statistics import record


def up_to(capacity: float) -> tuple[list[float], Callable[[float], tuple[tuple[str, ...], float]]]:
    """A server that meets its objectives up to a load, and the loads it was asked."""
    asked: list[float] = []

    def measure(load: float) -> tuple[tuple[str, ...], float]:
        asked.append(load)
        return (() if load <= capacity else ("ttft_p90<=300: 400.0 ms",)), load

    return asked, measure


@given(capacity=st.floats(1, 1000), whole=st.booleans())
def test_the_step_is_found_within_the_resolution(capacity: float, whole: bool) -> None:
    asked, measure = up_to(capacity)
    found = find_max(measure, 1, 1024, whole=whole)
    assert found.best is not None
    assert found.best.load <= capacity
    assert capacity < found.best.load * RESOLUTION or (whole and capacity < found.best.load + 1)
    assert not whole or all(load == int(load) for load in asked)
    assert len(asked) == len(set(asked)) <= math.log2(1024) + 1 + 4
    assert found.bounded


def test_a_server_that_meets_nothing_and_one_that_meets_everything() -> None:
    asked, measure = up_to(0.5)
    found = find_max(measure, 1, 64, whole=True)
    assert (found.best, found.bounded, asked) == (None, True, [1])
    asked, measure = up_to(1e9)
    found = find_max(measure, 1, 50, whole=True)
    assert found.best is not None
    assert (found.best.load, found.bounded, asked) == (50, False, [1, 2, 4, 8, 16, 32, 50])


def test_a_start_beyond_the_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="limit"):
        find_max(lambda load: ((), load), 5, 4, whole=True)


def test_objectives_are_read_in_their_notation() -> None:
    assert parse_objectives("ttft_p90<=300, tpot<=50.5ms,e2e_mean_ms <= 9") == (
        Objective("ttft_ms", "p90", 300),
        Objective("tpot_ms", "p90", 50.5),
        Objective("e2e_ms", "mean", 9),
    )


@pytest.mark.parametrize("text", ["", "ttft", "ttft>300", "latency<=1", "ttft_p42<=1", "ttft<=-1", "ttft<=1;tpot<=2"])
def test_what_is_no_objective_is_refused(text: str) -> None:
    with pytest.raises(ObjectiveError, match="METRIC_STATISTIC"):
        parse_objectives(text)


def test_a_load_point_misses_by_percentile_and_goodput_counts_single_requests() -> None:
    """100 requests a second apart, every fifth with a TTFT of 500 ms: the p90 misses 300 ms, 80 of 100 requests meet it."""
    records = [record(n, start_ms=1000 * n, ttft_ms=500 if n % 5 == 0 else 100) for n in range(100)]
    statistics = load_statistics(records, Asked())
    objectives = parse_objectives("ttft_p90<=300,tpot_p90<=50")
    assert missed(statistics, objectives) == ("ttft_p90<=300: 500.0 ms",)
    assert missed(statistics, parse_objectives("ttft_p50<=300")) == ()
    assert goodput_per_s(records, statistics, objectives) == pytest.approx(0.8 * statistics.requests_per_s, rel=0.02)


def test_a_load_point_with_failures_meets_nothing() -> None:
    statistics = load_statistics([record(0), record(1, start_ms=500, failure="timeout")], Asked())
    assert missed(statistics, parse_objectives("ttft<=1000")) == ("1 of 2 requests failed",)


@given(capacity=st.floats(0.1, 60), start=st.floats(61, 90))
def test_a_start_that_misses_is_followed_downwards(capacity: float, start: float) -> None:
    """Down to a thousandth of it: the answer is not that nothing meets them."""
    asked, measure = up_to(capacity)
    found = find_max(measure, start, 1000, whole=False)
    assert found.best is not None
    assert found.best.load <= capacity < found.best.load * RESOLUTION
    assert len(asked) == len(set(asked))


def test_a_whole_start_that_misses_is_followed_down_to_one() -> None:
    asked, measure = up_to(0.5)
    found = find_max(measure, 20, 64, whole=True)
    assert (found.best, found.bounded, asked) == (None, True, [20, 10, 5, 2, 1])


def test_a_higher_rate_is_sustained_for_as_long() -> None:
    """60 requests a minute at 1/s; at 512/s a burst of 60 would tell what the queue holds, not what the server sustains."""
    load = Load(60, profile=RateProfile.steady(1, 60))
    fast, slow = at_rate(load, 512).profile, at_rate(load, 0.5).profile
    assert fast is not None
    assert slow is not None
    assert (fast.points[-1][0], fast.requests) == (60, 60 * 512)
    assert slow.requests == 100


def test_two_bounds_on_one_metric_let_a_request_be_as_slow_as_the_looser() -> None:
    records = [record(n, start_ms=1000 * n, ttft_ms=400 if n % 3 == 0 else 100) for n in range(99)]
    statistics = load_statistics(records, Asked())
    objectives = parse_objectives("ttft_p50<=200,ttft_p99<=500")
    assert missed(statistics, objectives) == ()
    assert goodput_per_s(records, statistics, objectives) == pytest.approx(statistics.requests_per_s)
