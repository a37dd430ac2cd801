"""The numbers of a load point: percentiles of requests, throughput over the window, and flags where they mislead."""

from __future__ import annotations

import tracemalloc
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from assets.benchmark.bench_document import between_runs
from assets.benchmark.job import Summary
from assets.benchmark.load.decode import RequestRecord
from assets.benchmark.load.intervals import block_length, gap_intervals, interval, latency_intervals, resample
from assets.benchmark.load.statistics import Asked, load_statistics, summarize
from assets.benchmark.load.steady_state import mser_cut
from assets.benchmark.load.stopping import StoppingRule

MS = 1_000_000


def record(
    index: int = 0,
    start_ms: float = 0,
    ttft_ms: float = 100,
    gap_ms: float = 10,
    tokens: int = 11,
    *,
    chunks: int | None = None,
    input_tokens: int | None = 20,
    failure: str | None = None,
    usage_reported: bool = True,
    tokenizer_tokens: int | None = None,
) -> RequestRecord:
    chunks = tokens if chunks is None else chunks
    e2e_ms = ttft_ms + gap_ms * (chunks - 1)
    return RequestRecord(
        index=index,
        turn=0,
        due_ns=int(start_ms * MS),
        start_ns=int(start_ms * MS),
        end_ns=int((start_ms + e2e_ms) * MS),
        clock_ns=int(start_ms * MS),
        lag_ms=0.0,
        connect_ms=None,
        receive_lag_ms=None,
        ttft_ms=ttft_ms,
        tpot_ms=gap_ms * (chunks - 1) / (tokens - 1) if tokens > 1 else None,
        e2e_ms=e2e_ms,
        token_gaps_ms=(gap_ms,) * (chunks - 1),
        chunks=chunks,
        input_tokens=input_tokens,
        cached_tokens=None,
        output_tokens=tokens,
        tokenizer_tokens=tokenizer_tokens,
        usage_reported=usage_reported,
        finish_reason="length",
        failure=failure,
        detail="",
    )


def test_percentiles_interpolate_linearly() -> None:
    """Type 7 of Hyndman & Fan (1996): of 15, 20, 35, 40, 50 the 40th percentile is 29; here the ones that we report."""
    assert astuple(summarize([15, 20, 35, 40, 50])) == pytest.approx((32, 35, 46, 48, 49.6))


def test_nothing_measured_is_none_not_zero() -> None:
    assert summarize([]) == Summary(None, None, None, None, None)


@settings(max_examples=50)
@given(st.lists(st.floats(min_value=0, max_value=1e6), min_size=1, max_size=50))
def test_a_summary_is_ordered_and_within_its_data(values: list[float]) -> None:
    summary = summarize(values)
    p50, p90, p95, p99, mean = summary.p50, summary.p90, summary.p95, summary.p99, summary.mean
    assert p50 is not None
    assert p90 is not None
    assert p95 is not None
    assert p99 is not None
    assert mean is not None
    slack = 1e-9 * max(values)
    assert min(values) - slack <= p50 <= p90 + slack
    assert p90 <= p95 + slack
    assert p95 <= p99 + slack <= max(values) + 2 * slack
    assert min(values) - slack <= mean <= max(values) + slack


def test_throughput_is_over_the_window_from_first_send_to_last_token() -> None:
    """Two streams, two requests each of 200 ms: 4 requests and 44 tokens in 0.4 s."""
    records = [record(i, start_ms=200 * (i // 2)) for i in range(4)]
    statistics = load_statistics(records, Asked(2, 20, 11))
    assert statistics.duration_s == pytest.approx(0.4)
    assert statistics.requests_per_s == pytest.approx(10)
    assert statistics.output_tokens_per_s == pytest.approx(110)
    assert statistics.total_tokens_per_s == pytest.approx(310)
    assert statistics.concurrency_mean == pytest.approx(2)
    assert statistics.quality_flags == ("few_requests", "no_steady_window")


def test_itl_percentiles_are_of_gaps_not_of_request_means() -> None:
    """One slow request of 2 gaps among long ones: by gaps it hardly weighs, by request means it would be a tenth."""
    records = [record(i, gap_ms=10, tokens=101) for i in range(9)] + [record(9, gap_ms=500, tokens=3)]
    statistics = load_statistics(records, Asked())
    assert statistics.itl_ms.p90 == 10
    assert statistics.itl_ms.mean == pytest.approx((900 * 10 + 2 * 500) / 902)


def test_failed_requests_are_counted_by_kind_and_left_out_of_latencies() -> None:
    records = [record(0), record(1, ttft_ms=9_000, failure="timeout"), record(2, ttft_ms=1, failure="disconnected")]
    statistics = load_statistics(records, Asked())
    assert (statistics.requests_sent, statistics.requests_completed, statistics.requests_failed) == (3, 1, 2)
    assert statistics.failures == {"disconnected": 1, "timeout": 1}
    assert statistics.ttft_ms.mean == 100
    assert "request_failures" in statistics.quality_flags


def test_all_failed_is_reported_not_raised() -> None:
    statistics = load_statistics([record(failure="connect")], Asked())
    assert statistics.requests_completed == 0
    assert statistics.ttft_ms.p50 is None
    assert statistics.intervals == {}


@pytest.mark.parametrize(
    ("records", "asked", "flag"),
    [
        ([record(0), record(1)], Asked(concurrency=4), "concurrency_off_target"),
        ([record(usage_reported=False)], Asked(), "usage_missing"),
        ([record(input_tokens=30)], Asked(input_tokens=20), "input_tokens_off_target"),
        ([record(tokens=9)], Asked(output_tokens=11), "output_tokens_off_target"),
        ([record(tokens=8, chunks=2)], Asked(), "multi_token_chunks"),
        ([record(tokens=8, chunks=9)], Asked(), "more_chunks_than_tokens"),
        ([record(tokens=40, tokenizer_tokens=36)], Asked(), "token_counts_disagree"),
    ],
)
def test_flags(records: list[RequestRecord], asked: Asked, flag: str) -> None:
    assert flag in load_statistics(records, asked).quality_flags


def test_a_sound_load_point_has_no_flag() -> None:
    records = [record(i, start_ms=200 * i) for i in range(100)]
    assert load_statistics(records, Asked(1, 20, 11)).quality_flags == ()


def test_intervals_hold_their_estimate_and_depend_on_the_seed_only() -> None:
    random = np.random.default_rng(1)
    records = [record(i, start_ms=300 * i, ttft_ms=float(t)) for i, t in enumerate(random.gamma(4, 25, size=60))]
    statistics = load_statistics(records, Asked(), seed=5)
    statistical = {f"{metric}_{of}_ms" for metric in ("ttft", "tpot", "itl", "e2e") for of in ("mean", "p50", "p90", "p95", "p99")}
    assert set(statistics.intervals) == {*statistical, "output_tokens_per_s"}
    for name, value in (("ttft_p90_ms", statistics.ttft_ms.p90), ("output_tokens_per_s", statistics.output_tokens_per_s)):
        low, high = statistics.intervals[name]
        assert value is not None
        assert low < value < high
    assert load_statistics(records, Asked(), seed=5).intervals == statistics.intervals
    assert load_statistics(records, Asked(), seed=6).intervals != statistics.intervals


def test_a_bootstrap_interval_of_the_mean_agrees_with_theory() -> None:
    """1.96 x s / sqrt(n) for the mean of independent values, within 15 %: 400 standard normal ones."""
    values = np.random.default_rng(2).normal(size=400)
    low, high = interval(values[resample(400, 1, seed=3)].mean(axis=1))
    assert (high - low) / 2 == pytest.approx(1.96 * values.std(ddof=1) / 20, rel=0.15)


def test_blocks_see_the_dependence_that_single_requests_hide() -> None:
    """An AR(1) process with coefficient 0.8: the mean's true standard error is 3 times that of independent values of its variance."""
    random = np.random.default_rng(4)
    values = np.zeros(4000)
    for i in range(1, 4000):
        values[i] = 0.8 * values[i - 1] + random.normal()
    widths = [np.diff(interval(values[resample(4000, block, seed=1)].mean(axis=1)))[0] for block in (1, 50)]
    assert widths[1] / widths[0] == pytest.approx(3, rel=0.25)


@given(size=st.integers(1, 3000), concurrency=st.floats(0, 1e4))
def test_blocks_fit_into_the_sample(size: int, concurrency: float) -> None:
    block = block_length(size, concurrency)
    assert 1 <= block <= size
    rows = resample(size, block, seed=0, resamples=3)
    assert rows.shape == (3, size)
    assert (rows >= 0).all()
    assert (rows < size).all()


def test_the_warm_up_is_cut_off_and_a_settled_series_is_not() -> None:
    """A start 10 times as slow that decays over the first 100 requests, in noise of 5 %."""
    random = np.random.default_rng(5)
    settled = random.normal(100, 5, 1000)
    warming = settled + 900 * np.exp(-np.arange(1000) / 20)
    cut = mser_cut(warming)
    assert cut is not None
    assert 60 <= cut <= 200
    assert abs(warming[cut:].mean() - 100) < 2
    assert (mser_cut(settled) or 0) <= 100


def test_a_drift_that_never_ends_has_no_steady_state() -> None:
    assert mser_cut(np.linspace(1, 100, 500)) is None


def test_a_warm_up_counts_in_no_number() -> None:
    """One stream; the first 20 requests take 5 s to a first token, the 400 after them 0.1 s."""
    records, at = [], 0.0
    for index in range(420):
        slow = record(index, start_ms=at, ttft_ms=5000 if index < 20 else 100)
        records.append(slow)
        at += slow.e2e_ms or 0
    statistics = load_statistics(records, Asked(1, 20, 11))
    assert statistics.window.kind == "steady"
    assert (statistics.requests_completed, statistics.requests_counted) == (420, 400)
    assert statistics.ttft_ms.mean == 100
    assert statistics.requests_per_s == pytest.approx(5, rel=0.01)
    assert statistics.output_tokens_per_s == pytest.approx(55, rel=0.01)
    assert statistics.quality_flags == ()


def test_a_load_point_ends_when_its_percentiles_are_known_and_not_before() -> None:
    random = np.random.default_rng(6)
    tight = [record(i, start_ms=300 * i, ttft_ms=float(t)) for i, t in enumerate(random.normal(100, 1, 300))]
    wide = [record(i, start_ms=300 * i, ttft_ms=float(t)) for i, t in enumerate(random.lognormal(4, 1.5, 300))]
    assert not StoppingRule(100, 0.05, 1)(tight[:99])
    assert StoppingRule(100, 0.05, 1)(tight[:100])
    assert not StoppingRule(100, 0.05, 1)(wide)


def test_requests_that_fail_do_not_make_a_load_point_known() -> None:
    failed = [record(i, start_ms=300 * i, failure="timeout") for i in range(200)]
    assert not StoppingRule(100, 0.05, 1)(failed)


def test_no_requests_is_an_error() -> None:
    with pytest.raises(ValueError, match="without requests"):
        load_statistics([], Asked())


def waves(requests: int, streams: int) -> list[RequestRecord]:
    """A closed loop on a server that prefills one prompt after the other, 50 ms each: the first wave queues, later ones come one by one."""
    made: list[RequestRecord] = []
    free_ms, prefill_free_ms = [0.0] * streams, 0.0
    for index in range(requests):
        stream = min(range(streams), key=free_ms.__getitem__)
        start_ms = free_ms[stream]
        prefill_free_ms = max(prefill_free_ms, start_ms) + 50
        made.append(record(index, start_ms=start_ms, ttft_ms=prefill_free_ms - start_ms, gap_ms=20, tokens=101))
        free_ms[stream] = prefill_free_ms + 2000
    return made


def test_the_first_wave_is_not_the_load_and_a_load_point_too_short_to_tell_says_so() -> None:
    """32 streams: seven requests each have a steady window with a TTFT p90 of 50 ms; three each show the queue of the start, flagged."""
    settled, short = (load_statistics(waves(32 * n, 32), Asked(32)) for n in (7, 3))
    assert settled.window.kind == "steady"
    assert settled.ttft_ms.p90 == pytest.approx(50)
    assert "no_steady_window" not in settled.quality_flags
    assert short.window.kind == "whole"
    assert short.ttft_ms.p90 is not None
    assert short.ttft_ms.p90 > 500
    assert "no_steady_window" in short.quality_flags


def test_evenly_spaced_requests_have_a_narrow_throughput_interval() -> None:
    """10 requests a second of 11 tokens in 200 ms each: 110 tokens a second, whatever the latencies do."""
    random = np.random.default_rng(4)
    records = [record(i, start_ms=100 * i, ttft_ms=float(t)) for i, t in enumerate(random.uniform(50, 300, size=400))]
    low, high = load_statistics(records, Asked()).intervals["output_tokens_per_s"]
    assert 106 < low < 110 < high < 114


def test_many_requests_are_resampled_in_bounded_memory() -> None:
    """20,000 requests of 50 gaps take about as much as a thousand would."""
    gaps = [np.full(50, 10.0 + n % 7) for n in range(20_000)]
    tracemalloc.start()
    try:
        by_gap = gap_intervals(gaps, 8, seed=1)
        by_request = latency_intervals(np.arange(20_000, dtype=np.float64), 8, seed=1)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 150e6
    assert by_gap["mean"][0] < 13 < by_gap["mean"][1]
    assert by_request["p90"][0] < 18_000 < by_request["p90"][1]


def test_the_pause_after_an_open_loops_last_arrival_is_part_of_its_rate() -> None:
    """Ten requests scheduled over 5 s are 2 a second, also where the last comes after 3 s."""
    records = [record(i, start_ms=300 * i) for i in range(10)]
    assert load_statistics(records, Asked(scheduled_s=5.0)).requests_per_s == pytest.approx(2.0)


def test_a_handful_of_requests_has_no_interval() -> None:
    assert load_statistics([record(i, start_ms=300 * i) for i in range(9)], Asked()).intervals == {}


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300))
@settings(max_examples=50, deadline=None)
def test_percentiles_are_scipys_of_the_same_type(values: list[float]) -> None:
    """Type 7 (alphap and betap 1), as two libraries have it."""
    found = summarize(values)
    expected = stats.mstats.mquantiles(values, (0.5, 0.9, 0.95, 0.99), alphap=1, betap=1)
    assert (found.p50, found.p90, found.p95, found.p99) == pytest.approx(tuple(expected), rel=1e-9, abs=1e-9)


def test_an_interval_of_independent_values_is_scipys_bootstrap() -> None:
    """Blocks of one are the ordinary bootstrap: scipy's percentile interval of the p90, within its own noise."""
    values = np.random.default_rng(5).lognormal(4, 0.5, size=300)
    low, high = interval(np.percentile(values[resample(300, 1, seed=6, resamples=4000)], 90, axis=1))
    of_scipy = stats.bootstrap(
        (values,), lambda v, axis: np.percentile(v, 90, axis=axis), n_resamples=4000, method="percentile", rng=np.random.default_rng(7)
    ).confidence_interval
    width = of_scipy.high - of_scipy.low
    assert abs(low - of_scipy.low) < 0.15 * width
    assert abs(high - of_scipy.high) < 0.15 * width


def test_the_interval_between_runs_is_students() -> None:
    """Mean, deviation and 95 % interval of five runs, as scipy's one-sample t test has them."""
    values = [100.0, 104.0, 98.0, 101.5, 99.0]
    documents = [{"requests": {"completed": 1}, "metrics": {"requests_per_s": value}} for value in values]
    found = between_runs(documents)["requests_per_s"]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found["runs"], found["mean"]) == (5, pytest.approx(100.5))
    assert found["interval"] == pytest.approx([expected.low, expected.high])
