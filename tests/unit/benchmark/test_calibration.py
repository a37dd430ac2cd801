"""The verdict on the client itself: when its own error is part of the numbers, a load point says so."""

from __future__ import annotations

import pytest

from assets.benchmark.job import Summary
from assets.benchmark.load.calibration import Calibration, client_verdict
from assets.benchmark.load.fleet import ClientReport
from assets.benchmark.load.plan import Chain, LoadPlan, Turn

NOTHING = Summary(None, None, None, None, None)


def summary(p99: float) -> Summary:
    return Summary(0.1, 0.1, 0.2, 0.3, p99)


def calibration(error_p99_ms: float, failed: int = 0) -> Calibration:
    return Calibration(
        transport="tcp", concurrency=64, rate_per_s=None, requests=192, failed=failed, ttft_error_ms=summary(error_p99_ms),
        ttft_error_steady_ms=summary(error_p99_ms), itl_p99_bias_ms=0.0, schedule_lag_ms=summary(0.2), receive_lag_ms=summary(0.2),
        efficiency=0.999, rate_error_share=None, output_tokens_per_s=1000.0, client=ClientReport(1, 0.1, 0.1, 100, 64, True),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("error_p99_ms", "lag_p99_ms", "cpu_share", "ttft_p50_ms", "reasons"),
    [
        (0.5, 0.5, 0.3, 50.0, 0),
        (2.1, 0.5, 0.3, 50.0, 1),
        (2.1, 0.5, 0.3, 200.0, 0),  # 2 % of 200 ms
        (0.5, 30.0, 0.3, 50.0, 1),
        (0.5, 0.5, 0.95, 50.0, 1),
        (9.0, 99.0, 0.95, 50.0, 3),
    ],
)
def test_beyond_a_bound_the_client_is_the_limit(
    error_p99_ms: float, lag_p99_ms: float, cpu_share: float, ttft_p50_ms: float, reasons: int
) -> None:
    verdict = client_verdict(
        calibration(error_p99_ms), summary(lag_p99_ms), cpu_share, ttft_p50_ms=ttft_p50_ms, e2e_p50_ms=1000.0, scheduled=False
    )
    assert len(verdict) == reasons


@pytest.mark.parametrize(("scheduled", "reasons"), [(False, 0), (True, 1)])
def test_a_late_send_is_part_of_an_open_loops_ttft_and_is_held_against_it(scheduled: bool, reasons: int) -> None:
    """15 ms are little of a second's latency, and much of a TTFT of 50 ms that contains them."""
    verdict = client_verdict(calibration(0.5), summary(15.0), 0.3, ttft_p50_ms=50.0, e2e_p50_ms=1000.0, scheduled=scheduled)
    assert len(verdict) == reasons


def test_a_calibration_that_failed_is_no_certificate() -> None:
    assert client_verdict(calibration(0.1, failed=3), NOTHING, 0.1, ttft_p50_ms=100.0, e2e_p50_ms=1000.0, scheduled=False) == (
        "3 of 192 calibration requests failed",
    )


def test_shares_of_a_plan_are_the_plan() -> None:
    """Every chain and every stream is in exactly one process's share, at its own instant."""
    chains: list[Chain] = [(Turn((b"%d" % n,)),) for n in range(10)]
    plan = LoadPlan(chains, "/", 1.0, due_s=[n / 10 for n in range(10)])
    shares = [plan.share(worker, 3) for worker in range(3)]
    assert sorted(due for share in shares for due in share.due_s or ()) == plan.due_s
    assert {chain for share in shares for chain in share.chains} == set(chains)
    assert [share.chains[k] for k in range(3) for share in shares] == chains[:9]


@pytest.mark.parametrize(
    "arguments", [{}, {"streams_start_s": [0.0], "due_s": [0.0]}, {"due_s": [0.0, 1.0]}, {"streams_start_s": [0.0], "chains": []}]
)
def test_a_plan_that_is_none_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"load plan|open loop"):
        LoadPlan(**{"chains": [(Turn((b"",)),)], "path": "/", "timeout_s": 1.0, **arguments})  # type: ignore[arg-type]
