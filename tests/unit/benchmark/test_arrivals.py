"""Open loops send what was asked, when it was asked: the number exactly, the instants after the rate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from assets.benchmark.load.arrivals import ArrivalError, ArrivalProcess, ClosedLoop, RateProfile, open_loop


@given(
    rate=st.floats(0.5, 500), duration=st.floats(1, 60), process=st.sampled_from(["constant", "poisson", "gamma"]), seed=st.integers(0, 99)
)
def test_the_number_is_rate_times_duration_and_instants_ascend_within_it(
    rate: float, duration: float, process: ArrivalProcess, seed: int
) -> None:
    profile = RateProfile.steady(rate, duration)
    if profile.requests < 1:
        with pytest.raises(ArrivalError):
            open_loop(profile, process, seed)
        return
    due = np.asarray(open_loop(profile, process, seed, burstiness=0.5).due_s)
    assert len(due) == round(rate * duration)
    assert due[0] == 0
    assert (np.diff(due) >= 0).all()
    assert due[-1] <= duration * (1 + 1e-9)


def test_constant_arrivals_are_evenly_spaced() -> None:
    assert open_loop(RateProfile.steady(10, 1), "constant", 0).due_s == pytest.approx([0.1 * n for n in range(10)])


def test_poisson_gaps_are_exponential() -> None:
    """Kolmogorov-Smirnov against the exponential distribution of the asked rate; Gamma gaps of shape 0.3 are refused by it."""
    gaps = np.diff(open_loop(RateProfile.steady(50, 100), "poisson", 1).due_s)
    assert stats.kstest(gaps, stats.expon(scale=1 / 50).cdf).pvalue > 0.01
    bursty = np.diff(open_loop(RateProfile.steady(50, 100), "gamma", 1, burstiness=0.3).due_s)
    assert stats.kstest(bursty, stats.expon(scale=1 / 50).cdf).pvalue < 1e-6


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_burstiness_is_the_shape_of_the_gaps(burstiness: float) -> None:
    """The squared coefficient of variation of Gamma gaps is 1 over their shape."""
    gaps = np.diff(open_loop(RateProfile.steady(100, 200), "gamma", 2, burstiness).due_s)
    assert (gaps.std() / gaps.mean()) ** 2 == pytest.approx(1 / burstiness, rel=0.1)


def test_a_ramp_sends_as_many_as_the_area_under_it() -> None:
    """From 0 to 20 per second over 10 s: 100 requests, of which the rate's integral, t^2, says a quarter comes in the first half."""
    due = np.asarray(open_loop(RateProfile(((0.0, 0.0), (10.0, 20.0))), "constant", 0).due_s)
    assert len(due) == 100
    assert (due < 5).sum() == 25
    assert due == pytest.approx(np.sqrt(np.arange(100)))


def test_stages_follow_one_another() -> None:
    due = np.asarray(open_loop(RateProfile.staged([(5, 10), (0, 5), (20, 10)]), "constant", 0).due_s)
    assert [((due >= a) & (due < b)).sum() for a, b in ((0, 10), (10, 14.99), (15, 25))] == [50, 0, 200]


@pytest.mark.parametrize(
    "points",
    [(), ((0.0, 1.0),), ((1.0, 1.0), (2.0, 1.0)), ((0.0, 0.0), (1.0, 0.0)), ((0.0, -1.0), (1.0, 1.0)), ((0.0, 1.0), (float("inf"), 1.0))],
)
def test_what_is_no_profile_is_refused(points: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ArrivalError):
        RateProfile(points)


def test_streams_start_over_the_ramp() -> None:
    assert ClosedLoop(4, ramp_s=2).streams_start_s() == [0, 0.5, 1.0, 1.5]
