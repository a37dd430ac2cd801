"""The load client against a server in another process that knows what it sent and when: definitions, failures, connections."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import httpx2
import pytest

from assets.benchmark.load.client import Endpoint
from assets.benchmark.load.closed_loop import run_closed_loop, run_until_stopped
from assets.benchmark.load.completions import COMPLETIONS_PATH, RequestRecord, completion_body, decode
from assets.benchmark.load.session import CalibrationError, LoadSession, never
from assets.benchmark.load.statistics import Asked, load_statistics
from tests import ground_truth_server


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
) -> tuple[list[RequestRecord], Endpoint]:
    """Records of requests that are known to the server by their index. The first may have a scenario of its own."""
    endpoint = Endpoint.parse(url)
    scenarios = [scenario if index or first is None else first for index in range(requests)]
    payloads = [
        endpoint.request("POST", COMPLETIONS_PATH, completion_body("truth", [1] * 8, 4, {"user": str(i), "scenario": of_request}))
        for i, of_request in enumerate(scenarios)
    ]
    exchanges = run_until_stopped(lambda: run_closed_loop(endpoint, payloads, concurrency, timeout_s), never)
    return [decode(exchange, expected) for exchange in exchanges], endpoint


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
    records, endpoint = measure(url, {}, requests=10, concurrency=2)
    assert truth(url)["connections"] - before == 3  # two streams, and the question itself
    assert endpoint.reuse_connections
    assert sum(record.connect_ms is not None for record in records) == 2


def test_a_server_that_closes_without_saying_so_loses_no_request(url: str) -> None:
    """llama.cpp promises keep-alive and closes after every stream: requests go out again, on connections of their own."""
    records, endpoint = measure(url, {"close_after": True}, requests=12, concurrency=3, expected=4)
    assert [record.failure for record in records] == [None] * 12
    assert not endpoint.reuse_connections


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
        ({"fault": "http_429"}, "http_4xx"),
        ({"fault": "http_500"}, "http_5xx"),
        ({"fault": "not_http"}, "malformed_http"),
        ({"fault": "close_mid_stream"}, "disconnected"),
        ({"fault": "no_end"}, "malformed_sse"),
        ({"fault": "bad_json"}, "malformed_sse"),
        ({"fault": "error_event"}, "server_error"),
        ({"fault": "empty"}, "empty_output"),
        ({"chunks": 2}, "early_stop"),
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


def test_text_prompts_are_calibrated_by_the_servers_count(url: str) -> None:
    session = LoadSession(Endpoint.parse(url), "truth", 10.0)
    prompts = session.calibrated_prompts(seed=0)
    records = session.put(prompts.make(3, 103, seed=1), output_tokens=4, concurrency=1)
    assert [record.input_tokens for record in records] == [103] * 3


def test_a_refusal_while_calibrating_is_told(url: str) -> None:
    with pytest.raises(CalibrationError, match="no such model") as caught:
        LoadSession(Endpoint.parse(url), "other", 10.0).calibrated_prompts(seed=0)
    assert caught.value.failure == "http_4xx"


def test_failures_are_counted_beside_what_succeeded(url: str) -> None:
    """One request of six is refused: the others' numbers stand, and the load point says so."""
    records, _ = measure(url, {}, requests=6, expected=4, first={"fault": "http_429"})
    statistics = load_statistics(records, Asked())
    assert (statistics.requests_sent, statistics.requests_completed, statistics.failures) == (6, 5, {"http_4xx": 1})
    assert "request_failures" in statistics.quality_flags
    assert "too many requests" in records[0].detail
