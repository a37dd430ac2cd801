"""The load generator against a server in another process that knows what it sent and when: definitions, failures, connections."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from assets.benchmark.load.arrivals import ClosedLoop, OpenLoop
from assets.benchmark.load.decode import RequestRecord
from assets.benchmark.load.endpoint import Endpoint
from assets.benchmark.load.fleet import ClientReport
from assets.benchmark.load.prompts import TextPrompts
from assets.benchmark.load.session import Ask, CalibrationError, LoadSession, StoppedError, single
from assets.benchmark.load.statistics import Asked, load_statistics
from tests import ground_truth_server

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ground_truth_server.running() as address:
        yield address


def measure(
    url: str,
    scenario: dict[str, object],
    *,
    requests: int = 4,
    concurrency: int = 2,
    expected: int | None = None,
    timeout_s: float = 30,
    first: dict[str, object] | None = None,
    processes: int = 1,
) -> tuple[list[RequestRecord], ClientReport]:
    """Records, by index, of requests that are known to the server by their index. The first may have a scenario of its own."""
    scenarios = [scenario if index or first is None else first for index in range(requests)]
    session = LoadSession(
        Endpoint.parse(url),
        "truth",
        timeout_s,
        fixed_length=expected is not None,
    )
    session.body_fields = {"scenario": scenario, "scenarios": {"0": scenarios[0]}}
    result = session.put(single([[1] * 8] * requests, expected or 4), ClosedLoop(concurrency), processes=processes)
    return sorted(result.records, key=lambda record: record.index), result.client


def truth(url: str) -> dict[str, Any]:
    """What the server remembers, asked with an independent client."""
    answer: dict[str, Any] = httpx2.get(f"{url}/truth").json()
    return answer


def test_ttft_and_e2e_are_those_of_the_server_request_by_request(url: str) -> None:
    """The role chunk is no token (it comes 150 ms early), and the usage chunk is no token (it comes 1 s late)."""
    scenario: dict[str, object] = {"ttft_ms": 150, "gap_ms": 20, "chunks": 4, "role_chunk": True, "usage_delay_ms": 1000}
    records, _ = measure(url, scenario)
    known = truth(url)["requests"]
    for record in records:
        sent = known[str(record.index)]
        assert record.failure is None
        assert record.ttft_ms is not None
        first_ns = record.start_ns + int(record.ttft_ms * 1e6)
        assert sent["received_ns"] > record.start_ns
        assert first_ns >= sent["sent_ns"][0] >= record.start_ns + 150e6
        assert sent["sent_ns"][-1] <= record.end_ns < sent["usage_sent_ns"]
        assert (record.chunks, record.output_tokens, record.input_tokens) == (4, 4, 8)


def test_every_gap_is_between_arrivals_and_tpot_leaves_the_first_token_out(url: str) -> None:
    """No chunk is stamped before the server sent it; the gaps add up to what lies between first and last token."""
    records, _ = measure(url, {"ttft_ms": 150, "gap_ms": 20, "chunks": 5}, expected=5)
    known = truth(url)["requests"]
    for record in records:
        assert record.ttft_ms is not None
        assert record.e2e_ms is not None
        assert len(record.token_gaps_ms) == 4
        arrivals_ms = accumulate(record.token_gaps_ms, initial=record.start_ns / 1e6 + record.ttft_ms)
        assert all(arrival >= sent / 1e6 for arrival, sent in zip(arrivals_ms, known[str(record.index)]["sent_ns"], strict=True))
        assert sum(record.token_gaps_ms) == pytest.approx(record.e2e_ms - record.ttft_ms)
        assert record.tpot_ms == pytest.approx((record.e2e_ms - record.ttft_ms) / 4)


def test_chunks_of_several_tokens_are_flagged_and_every_token_counts(url: str) -> None:
    records, _ = measure(url, {"gap_ms": 40, "chunks": 3, "tokens_per_chunk": 5}, expected=15)
    for record in records:
        assert record.failure is None
        assert record.tpot_ms == pytest.approx(sum(record.token_gaps_ms) / 14)
    assert "multi_token_chunks" in load_statistics(records, Asked(output_tokens=15)).quality_flags


def test_a_stream_sends_its_next_request_without_waiting_for_the_others(url: str) -> None:
    """One request takes 1 s, the others next to nothing: they all pass on the second stream meanwhile, never more than two at once."""
    records, _ = measure(url, {"ttft_ms": 10}, requests=8, concurrency=2, first={"ttft_ms": 1000})
    assert all(record.start_ns < records[0].end_ns for record in records[1:])
    for record in records:
        in_flight = [other for other in records if other.start_ns <= record.start_ns < other.end_ns]
        assert 1 <= len(in_flight) <= 2


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_a_stream_torn_into_bytes_is_read_all_the_same(url: str, framing: str) -> None:
    records, _ = measure(url, {"bytes_per_write": 1, "framing": framing, "role_chunk": True}, expected=4)
    assert [(record.failure, record.chunks, record.output_tokens) for record in records] == [(None, 4, 4)] * 4


def test_connections_are_kept_where_the_server_keeps_them(url: str) -> None:
    before = truth(url)["connections"]
    records, client = measure(url, {}, requests=10, concurrency=2)
    assert truth(url)["connections"] - before == 3  # two streams, and the question itself
    assert (client.connections, client.reused_connections) == (2, True)
    assert sum(record.connect_ms is not None for record in records) == 2


def test_a_server_that_closes_without_saying_so_loses_no_request(url: str) -> None:
    """llama.cpp promises keep-alive and closes after every stream: requests go out again, on connections of their own."""
    records, client = measure(url, {"close_after": True}, requests=12, concurrency=3, expected=4)
    assert [record.failure for record in records] == [None] * 12
    assert not client.reused_connections


def test_a_request_that_the_server_drops_after_working_on_it_is_a_failure(url: str) -> None:
    """Not sent again: that would hide a failure, forget its latency and give the server the work twice."""
    before = truth(url)["vanished"]
    records, _ = measure(url, {"fault": "vanish", "ttft_ms": 300}, requests=3, concurrency=1, first={})
    assert [record.failure for record in records] == [None, "disconnected", "disconnected"]
    assert truth(url)["vanished"] - before == 2


@pytest.mark.parametrize(
    ("scenario", "kind"),
    [
        ({"fault": "http_404"}, "http_4xx"),
        ({"fault": "http_429"}, "http_429"),
        ({"fault": "http_500"}, "http_5xx"),
        ({"fault": "not_http"}, "malformed_http"),
        ({"fault": "close_mid_stream"}, "disconnected"),
        ({"fault": "no_end"}, "malformed_sse"),
        ({"fault": "bad_json"}, "malformed_sse"),
        ({"fault": "error_event"}, "server_error"),
        ({"fault": "empty"}, "empty_output"),
        ({"chunks": 2}, "early_stop"),
        ({"fault": "redirect"}, "http_3xx"),
        ({"fault": "wrong_type"}, "not_an_event_stream"),
        ({"fault": "gzip"}, "not_an_event_stream"),
    ],
)
def test_every_failure_is_counted_by_its_kind(url: str, scenario: dict[str, object], kind: str) -> None:
    records, _ = measure(url, scenario, requests=3, expected=4)
    assert [record.failure for record in records] == [kind] * 3


def test_a_server_that_never_answers_times_out(url: str) -> None:
    records, _ = measure(url, {"fault": "never"}, requests=2, timeout_s=0.3)
    assert [record.failure for record in records] == ["timeout"] * 2


def test_nobody_there_is_a_failed_request_not_an_exception() -> None:
    records, _ = measure("http://127.0.0.1:1", {}, requests=3)
    assert [record.failure for record in records] == ["connect"] * 3
    assert "cannot connect to 127.0.0.1:1" in records[0].detail


@pytest.mark.parametrize("fault", ["gigantic_chunk", "endless"])
def test_a_response_without_an_end_is_cut_off_in_bounded_memory(url: str, fault: str) -> None:
    records, _ = measure(url, {"fault": fault}, requests=3)
    assert [record.failure for record in records] == ["response_too_large"] * 3


def test_a_server_that_trickles_ends_with_the_timeout(url: str) -> None:
    """Each byte that comes is no reason to wait on: it would go on for ever."""
    records, _ = measure(url, {"fault": "drip"}, requests=2, timeout_s=2.5)
    assert [record.failure for record in records] == ["timeout"] * 2


@pytest.mark.parametrize("processes", [1, 2])
def test_several_processes_make_the_same_load_as_one(url: str, processes: int) -> None:
    """Every request once, the asked number in flight, every time within what the server knows."""
    before = set(truth(url)["requests"])
    records, client = measure(url, {"ttft_ms": 60, "gap_ms": 5}, requests=30, concurrency=6, expected=4, processes=processes)
    assert before <= set(truth(url)["requests"])
    assert client.processes == processes
    assert [record.index for record in records] == list(range(30))
    assert {record.failure for record in records} == {None}
    known = truth(url)["requests"]
    for record in records:
        in_flight = [other for other in records if other.start_ns <= record.start_ns < other.end_ns]
        assert 1 <= len(in_flight) <= 6
        assert record.ttft_ms is not None
        assert record.start_ns + record.ttft_ms * 1e6 >= known[str(record.index)]["sent_ns"][0]


def test_an_open_loop_sends_on_time_whether_or_not_others_have_ended(url: str) -> None:
    """A request that hangs for a second delays none of the 20 after it; none is sent before its instant."""
    due_s = tuple(0.02 * n for n in range(20))
    session = LoadSession(Endpoint.parse(url), "truth", 10, fixed_length=False)
    session.body_fields = {"scenario": {"ttft_ms": 5}, "scenarios": {"0": {"ttft_ms": 1000}}}
    result = session.put(single([[1] * 8] * 20, 4), OpenLoop(due_s))
    for record, due in zip(result.records, due_s, strict=True):
        assert record.due_ns == result.start_ns + int(due * 1e9)
        assert record.start_ns >= record.due_ns == record.clock_ns
    assert result.records[-1].start_ns < result.records[0].end_ns


def test_nothing_new_is_sent_after_the_duration(url: str) -> None:
    session = LoadSession(Endpoint.parse(url), "truth", 10, body_fields={"scenario": {"ttft_ms": 50}}, fixed_length=False)
    result = session.put(single([[1] * 8] * 500, 4), ClosedLoop(2), duration_s=0.4)
    assert 2 <= len(result.records) < 100
    assert all(record.failure is None for record in result.records)
    assert all(record.start_ns < result.start_ns + 400_000_000 for record in result.records)


def test_a_conversation_goes_on_with_the_models_own_answers_after_the_pause(url: str) -> None:
    """Three turns; the server counts two tokens a word and three around them, its answers have four words."""
    session = LoadSession(Endpoint.parse(url), "truth", 10, fixed_length=False)
    turns = tuple(Ask(f"one two {n}", 4, 0.2 if n else 0.0) for n in range(3))
    result = session.put([turns, turns], ClosedLoop(2))
    for index in range(2):
        mine = [record for record in result.records if record.index == index]
        assert [record.turn for record in mine] == [0, 1, 2]
        # three words more each turn, and the four of the answer, the first of which joins the prompt's last word
        assert [record.input_tokens for record in mine] == [9, 9 + 2 * 6, 9 + 4 * 6]
        for before, after in pairwise(mine):
            assert after.start_ns - before.end_ns >= 200_000_000
            assert after.clock_ns == after.due_ns


def test_a_closed_loop_may_begin_with_a_ramp(url: str) -> None:
    session = LoadSession(Endpoint.parse(url), "truth", 10, body_fields={"scenario": {"ttft_ms": 500}}, fixed_length=False)
    result = session.put(single([[1] * 8] * 4, 4), ClosedLoop(4, ramp_s=0.4))
    starts_ms = [(record.start_ns - result.start_ns) / 1e6 for record in result.records]
    assert all(start >= 100 * n for n, start in enumerate(starts_ms))


def test_enough_is_enough_and_what_is_under_way_is_finished(url: str) -> None:
    session = LoadSession(Endpoint.parse(url), "truth", 10, body_fields={"scenario": {"ttft_ms": 30}}, fixed_length=False)
    result = session.put(single([[1] * 8] * 400, 4), ClosedLoop(4), enough=lambda records: len(records) >= 12)
    assert 12 <= len(result.records) < 400
    assert {record.failure for record in result.records} == {None}


def test_a_stop_ends_the_load_and_leaves_no_process(url: str) -> None:
    session = LoadSession(Endpoint.parse(url), "truth", 60, body_fields={"scenario": {"fault": "never"}}, should_stop=lambda: True)
    with pytest.raises(StoppedError):
        session.put(single([[1] * 8] * 4, 4), ClosedLoop(2), processes=2)
    assert not [child for child in psutil.Process().children() if "assets.benchmark.load.process" in child.cmdline()]


def test_load_processes_do_not_outlive_a_killed_parent(url: str) -> None:
    program = (
        "import sys; from assets.benchmark.load.session import *; from assets.benchmark.load.endpoint import Endpoint\n"
        "session = LoadSession(Endpoint.parse(sys.argv[1]), 'truth', 60, body_fields={'scenario': {'fault': 'never'}})\n"
        "session.put(single([[1] * 8] * 4, 4), ClosedLoop(2), processes=2)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, url], cwd=ROOT)
    until = time.monotonic() + 30
    children: list[psutil.Process] = []
    while len(children) < 2 and time.monotonic() < until:
        children = psutil.Process(parent.pid).children()
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    assert len(children) == 2
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert (len(gone), alive) == (2, [])


def test_text_prompts_are_calibrated_by_the_servers_count(url: str) -> None:
    session = LoadSession(Endpoint.parse(url), "truth", 10.0)
    prompts = session.calibrated_prompts(seed=0, uncalibrated=TextPrompts())
    records = session.put(single(prompts.make([103] * 3, seed=1), 4), ClosedLoop(1)).records
    assert [record.input_tokens for record in records] == [103] * 3


def test_a_refusal_while_calibrating_is_told(url: str) -> None:
    with pytest.raises(CalibrationError, match="no such model") as caught:
        LoadSession(Endpoint.parse(url), "other", 10.0).calibrated_prompts(seed=0, uncalibrated=TextPrompts())
    assert caught.value.failure == "http_4xx"


def test_failures_are_counted_beside_what_succeeded(url: str) -> None:
    """One request of six is refused: the others' numbers stand, and the load point says so."""
    records, _ = measure(url, {}, requests=6, expected=4, first={"fault": "http_429"})
    statistics = load_statistics(records, Asked())
    assert (statistics.requests_sent, statistics.requests_completed, statistics.failures) == (6, 5, {"http_429": 1})
    assert "request_failures" in statistics.quality_flags
    assert "too many requests" in records[0].detail


@pytest.mark.parametrize(
    "arrivals",
    [OpenLoop(tuple(0.1 * n for n in range(40))), ClosedLoop(4, ramp_s=4)],
    ids=["open loop", "ramp"],
)
def test_what_is_under_way_when_the_time_is_up_is_finished(url: str, arrivals: OpenLoop | ClosedLoop) -> None:
    """More would be due by then: nothing of it is sent, and nobody waits for it."""
    session = LoadSession(Endpoint.parse(url), "truth", 10, body_fields={"scenario": {"ttft_ms": 400}}, fixed_length=False)
    result = session.put(single([[1] * 8] * 40, 4), arrivals, duration_s=0.6)
    assert {record.failure for record in result.records} == {None}
    assert all(record.start_ns < result.start_ns + 600_000_000 for record in result.records)
    assert max(record.end_ns for record in result.records) < result.start_ns + 5_000_000_000


def test_a_person_who_would_go_on_after_the_time_is_up_does_not(url: str) -> None:
    session = LoadSession(Endpoint.parse(url), "truth", 10, fixed_length=False)
    turns = tuple(Ask(f"one two {n}", 4, 0.5 if n else 0.0) for n in range(5))
    result = session.put([turns] * 3, ClosedLoop(3), duration_s=0.8)
    assert {record.failure for record in result.records} == {None}
    assert 3 <= len(result.records) <= 6


@pytest.mark.parametrize("target", ["unix:/nowhere/none.sock", "http://127.0.0.1:1"])
def test_a_thousand_refused_connections_are_a_thousand_counted_failures(target: str) -> None:
    records, _ = measure(target, {}, requests=1000, concurrency=3)
    assert [record.failure for record in records] == ["connect"] * 1000


def test_a_host_of_several_addresses_is_reached_at_the_one_that_answers(url: str) -> None:
    """`localhost` is ::1 first on most machines, where nobody listens."""
    records, client = measure(url.replace("127.0.0.1", "localhost"), {}, requests=8, concurrency=4, expected=4)
    assert [record.failure for record in records] == [None] * 8
    assert client.connections == 4


def test_one_request_that_hangs_does_not_keep_what_the_others_have_received(url: str) -> None:
    """Each finished response leaves the load process: 300 of them beside one that hangs are within the same timeout."""
    records, _ = measure(url, {}, requests=301, concurrency=2, timeout_s=3, first={"fault": "never"})
    assert [record.failure for record in records] == ["timeout", *[None] * 300]
