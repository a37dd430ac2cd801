"""The circuit breaker: it opens after five failures in a row, lets three try after half a minute, and closes with a success."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from assets.benchmark.breaker import FAILURES, RECOVERY, TRIAL_EXPIRES, TRIALS, Breaker

START = datetime(2026, 11, 21, tzinfo=UTC)


def opened() -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES):
        breaker = breaker.failed(START)
    return breaker


def test_four_failures_stop_nothing_and_a_success_forgets_them() -> None:
    breaker = Breaker()
    for _ in range(FAILURES - 1):
        breaker = breaker.failed(START)
    assert breaker.admit(START) == breaker
    assert breaker.succeeded() == Breaker()


def test_after_five_nothing_starts_for_half_a_minute_and_then_three_may_try() -> None:
    breaker = opened()
    assert breaker.admit(START + RECOVERY - timedelta(seconds=1)) is None
    assert breaker.wait(START) == RECOVERY
    later = START + RECOVERY
    for _ in range(TRIALS):
        admitted = breaker.admit(later)
        assert admitted is not None
        breaker = admitted
    assert breaker.admit(later) is None
    assert timedelta() < breaker.wait(later) <= RECOVERY


def test_a_trial_that_fails_opens_it_again_and_one_that_succeeds_closes_it() -> None:
    trying = opened().admit(START + RECOVERY)
    assert trying is not None
    again = trying.failed(START + RECOVERY)
    assert again.admit(START + RECOVERY + timedelta(seconds=1)) is None
    assert trying.succeeded().admit(START + RECOVERY) == Breaker()


def test_trials_whose_runs_were_killed_do_not_keep_it_shut_for_ever() -> None:
    breaker = opened()
    for _ in range(TRIALS):
        breaker = breaker.admit(START + RECOVERY) or breaker
    assert breaker.admit(START + RECOVERY + TRIAL_EXPIRES) is not None


@given(st.lists(st.tuples(st.sampled_from(["ask", "fail", "succeed"]), st.integers(0, 7200)), max_size=60))
def test_whoever_waits_as_long_as_told_is_let_in_sooner_or_later(steps: list[tuple[str, int]]) -> None:
    """Whatever happened before: no state refuses for ever, and what admits says that there is nothing to wait for."""
    breaker, now = Breaker(), START
    for step, seconds in steps:
        now += timedelta(seconds=seconds)
        match step:
            case "ask":
                breaker = breaker.admit(now) or breaker
            case "fail":
                breaker = breaker.failed(now)
            case _:
                breaker = breaker.succeeded()
    for _ in range(int(TRIAL_EXPIRES / RECOVERY) + 2):
        if breaker.admit(now) is not None:
            break
        assert breaker.wait(now) > timedelta()
        now += breaker.wait(now)
    assert breaker.admit(now) is not None
