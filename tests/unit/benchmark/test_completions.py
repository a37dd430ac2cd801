"""What a stream means: the definitions of docs/metrics.md, on exchanges whose stamps are known."""

from __future__ import annotations

import json

import pytest

from assets.benchmark.load.client import Exchange
from assets.benchmark.load.completions import completion_body, decode

MS = 1_000_000


def event(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def text(content: str, key: str = "content") -> bytes:
    return event(choices=[{"index": 0, "delta": {key: content}, "finish_reason": None}])


def finish(reason: str = "length") -> bytes:
    return event(choices=[{"index": 0, "delta": {}, "finish_reason": reason}])


def usage(prompt: int, completion: int) -> bytes:
    return event(choices=[], usage={"prompt_tokens": prompt, "completion_tokens": completion})


DONE = b"data: [DONE]\n\n"


def exchange(*arrivals: tuple[int, bytes], status: int = 200, failure: str | None = None) -> Exchange:
    """Sent at 0 ms; `arrivals` are (milliseconds, bytes)."""
    body = [(at * MS, data) for at, data in arrivals]
    return Exchange(0, start_ns=0, end_ns=body[-1][0] if body else 0, status=status, body=body, failure=failure)


def test_an_empty_role_chunk_is_no_token_and_a_trailing_usage_chunk_lengthens_nothing() -> None:
    record = decode(
        exchange((50, text("")), (250, text("a")), (270, text("b")), (290, text("c")), (291, finish()), (900, usage(7, 3)), (901, DONE)), 3
    )
    assert record.failure is None
    assert (record.ttft_ms, record.e2e_ms, record.tpot_ms) == (250, 290, 20)
    assert record.token_gaps_ms == (20, 20)
    assert record.end_ns == 290 * MS
    assert (record.input_tokens, record.output_tokens, record.chunks) == (7, 3, 3)


def test_tpot_leaves_the_first_token_out_and_divides_by_tokens_not_by_chunks() -> None:
    """Two chunks of four tokens each: (300 - 100) / 7, not / 1, and not with TTFT in it."""
    record = decode(exchange((100, text("a b c d")), (300, text("e f g h")), (301, finish()), (302, usage(1, 8)), (303, DONE)), 8)
    assert record.tpot_ms == pytest.approx(200 / 7)
    assert record.chunks == 2


def test_one_token_has_no_tpot() -> None:
    record = decode(exchange((100, text("a")), (101, finish()), (102, usage(1, 1)), (103, DONE)), 1)
    assert (record.tpot_ms, record.token_gaps_ms) == (None, ())


def test_reasoning_text_counts_as_a_token() -> None:
    for key in ("reasoning_content", "reasoning"):
        record = decode(exchange((10, text("hm", key)), (20, text("a")), (21, finish()), (22, DONE)))
        assert record.ttft_ms == 10


def test_events_torn_over_arrivals_are_counted_once_and_stamped_when_whole() -> None:
    stream = text("a") + text("b") + finish() + DONE
    record = decode(exchange(*((index, stream[index : index + 1]) for index in range(len(stream)))))
    assert record.chunks == 2
    assert record.ttft_ms == len(text("a")) - 1


def test_without_usage_chunks_stand_for_tokens_and_the_record_says_so() -> None:
    record = decode(exchange((10, text("a")), (20, text("b")), (21, DONE)))
    assert (record.output_tokens, record.usage_reported, record.input_tokens) == (2, False, None)


def test_usage_in_every_chunk_counts_by_its_last_value() -> None:
    chunk = {"choices": [{"index": 0, "text": "a", "finish_reason": None}]}
    record = decode(
        exchange(
            (10, event(**chunk, usage={"prompt_tokens": 3, "completion_tokens": 1})),
            (20, event(**chunk, usage={"prompt_tokens": 3, "completion_tokens": 2})),
            (21, DONE),
        )
    )
    assert (record.input_tokens, record.output_tokens) == (3, 2)


@pytest.mark.parametrize(
    ("arrivals", "kind"),
    [
        ([(1, text("a")), (2, text("b"))], "malformed_sse"),
        ([(1, text("a")), (2, b"data: {oops\n\n"), (3, DONE)], "malformed_sse"),
        ([(1, text("a")), (2, b"data: 7\n\n"), (3, DONE)], "malformed_sse"),
        ([(1, text("a")), (2, event(error={"message": "out of memory"})), (3, DONE)], "server_error"),
        ([(1, text("")), (2, finish()), (3, DONE)], "empty_output"),
        ([(1, text("a")), (2, finish("stop")), (3, usage(1, 1)), (4, DONE)], "early_stop"),
    ],
)
def test_failures_are_told_apart(arrivals: list[tuple[int, bytes]], kind: str) -> None:
    assert decode(exchange(*arrivals), 5).failure == kind


def test_an_end_without_done_is_fine_when_the_server_said_why_it_stopped() -> None:
    assert decode(exchange((1, text("a")), (2, finish()))).failure is None


@pytest.mark.parametrize(("status", "kind"), [(404, "http_4xx"), (503, "http_5xx"), (302, "http_other")])
def test_http_errors_keep_the_servers_words(status: int, kind: str) -> None:
    record = decode(exchange((5, b'{"error":\n"no such model"}'), status=status))
    assert record.failure == kind
    assert record.detail == f'HTTP {status}: {{"error": "no such model"}}'
    assert (record.ttft_ms, record.output_tokens) == (None, None)


def test_a_transport_failure_keeps_what_had_come_as_evidence() -> None:
    record = decode(exchange((10, text("a")), (20, text("b")), failure="disconnected"))
    assert (record.failure, record.chunks, record.ttft_ms) == ("disconnected", 2, 10)


def test_a_request_asks_for_a_stream_with_usage() -> None:
    body = json.loads(completion_body("m", [1, 2], 16, {"ignore_eos": True}))
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert (body["prompt"], body["max_tokens"], body["ignore_eos"]) == ([1, 2], 16, True)
