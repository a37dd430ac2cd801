"""What a stream means: the definitions of docs/metrics.md, on exchanges whose stamps are known."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.benchmark.load.api_formats import API_FORMATS, ApiFormatError
from assets.benchmark.load.decode import Decoding, RequestRecord, answer_text
from assets.benchmark.load.decode import decode as decode_as
from assets.benchmark.load.exchange import NO_STAMP, Exchange, TransportFailure
from tests.unit.benchmark.test_http1 import chunked, split

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


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def exchange(*arrivals: tuple[float, bytes], head: bytes = STREAM_HEAD, failure: TransportFailure = TransportFailure.NONE) -> Exchange:
    """Sent at 0 ms; `arrivals` are (milliseconds, bytes of the body); the head comes with the first."""
    made = Exchange(0, status=int(head[9:12]), failure=failure)
    for index, (at_ms, data) in enumerate(arrivals):
        made.raw += head + data if index == 0 else data
        made.arrival_ends.append(len(made.raw))
        made.user_ns.append(int(at_ms * MS))
        made.kernel_ns.append(NO_STAMP)
        made.end_ns = int(at_ms * MS)
    return made


def decode(of: Exchange, output_tokens: int | None = None) -> RequestRecord:
    return decode_as(of, Decoding(output_tokens=output_tokens))


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


@pytest.mark.parametrize(
    ("status", "kind"), [(404, "http_4xx"), (429, "http_429"), (503, "http_5xx"), (302, "http_3xx"), (201, "http_other")]
)
def test_http_errors_keep_the_servers_words(status: int, kind: str) -> None:
    record = decode(exchange((5, b'{"error":\n"no such model"}'), head=b"HTTP/1.1 %d X\r\n\r\n" % status))
    assert record.failure == kind
    assert record.detail == f'HTTP {status}: {{"error": "no such model"}}'
    assert (record.ttft_ms, record.output_tokens) == (None, None)


@pytest.mark.parametrize("header", [b"Content-Type: application/json", b"Content-Encoding: gzip"])
def test_an_answer_that_is_no_event_stream_is_a_failure_of_its_own(header: bytes) -> None:
    record = decode(exchange((5, text("a") + DONE), head=b"HTTP/1.1 200 OK\r\n" + header + b"\r\n\r\n"))
    assert (record.failure, record.chunks) == ("not_an_event_stream", 0)


def test_a_transport_failure_keeps_what_had_come_as_evidence() -> None:
    record = decode(exchange((10, text("a")), (20, text("b")), failure=TransportFailure.DISCONNECTED))
    assert (record.failure, record.chunks, record.ttft_ms) == ("disconnected", 2, 10)


@settings(max_examples=100)
@given(
    words=st.lists(st.sampled_from(["a", "0", "\r\n0\r\n\r\n", "ü€😀", "data: x"]), min_size=1, max_size=6),
    events_per_chunk=st.integers(min_value=1, max_value=3),
    cuts=st.lists(st.integers(min_value=0, max_value=10_000), max_size=40),
)
def test_no_way_of_cutting_the_stream_changes_what_is_read(words: list[str], events_per_chunk: int, cuts: list[int]) -> None:
    """Tokens are the same, and each has the time of the arrival that brought its event's last byte, found here byte by byte."""
    events = [text(""), *(text(word) for word in words), finish(), usage(5, len(words)), DONE]
    chunks = [b"".join(events[i : i + events_per_chunk]) for i in range(0, len(events), events_per_chunk)]
    response = chunked(chunks)
    pieces = split(response, cuts)
    record = decode(_cut(pieces), len(words))
    assert record.failure is None
    assert (record.chunks, record.output_tokens, record.input_tokens) == (len(words), len(words), 5)
    expected = [_arrival_of(response, pieces, number) for number in range(len(words))]
    assert record.ttft_ms is not None
    found = [record.ttft_ms, *(record.ttft_ms + sum(record.token_gaps_ms[: n + 1]) for n in range(len(words) - 1))]
    assert found == pytest.approx(expected)


def _cut(pieces: list[bytes]) -> Exchange:
    """A whole response, its pieces arriving a millisecond apart."""
    made = Exchange(0, status=200)
    for at_ms, piece in enumerate(pieces, 1):
        made.raw += piece
        made.arrival_ends.append(len(made.raw))
        made.user_ns.append(at_ms * MS)
        made.kernel_ns.append(at_ms * MS)
    return made


def _arrival_of(response: bytes, pieces: list[bytes], number: int) -> int:
    """The piece that holds the end of the `number`-th event with text, counted by hand."""
    place = -1
    for _ in range(number + 2):  # the role event comes first
        place = response.index(b'"finish_reason": null}]}\n\n', place + 1)
    last_byte = place + len(b'"finish_reason": null}]}\n\n') - 1
    seen = 0
    for index, piece in enumerate(pieces, 1):
        seen += len(piece)
        if seen > last_byte:
            return index
    raise AssertionError(number)


def test_kernel_stamps_are_taken_before_our_own_and_the_lag_is_told() -> None:
    made = exchange((12, text("a")), (33, text("b")), (34, finish() + DONE))
    made.kernel_ns = type(made.kernel_ns)("q", [10 * MS, 30 * MS, 31 * MS])
    record = decode(made)
    assert (record.ttft_ms, record.token_gaps_ms, record.receive_lag_ms) == (10, (20,), 2)


def test_an_open_loop_counts_from_the_schedule() -> None:
    """Sent 7 ms late: the user waited those too (no coordinated omission)."""
    made = exchange((20, text("a")), (40, text("b")), (41, finish() + DONE))
    made.due_ns, made.start_ns = 3 * MS, 10 * MS
    late = decode_as(made, Decoding(from_due=True))
    assert (late.ttft_ms, late.e2e_ms, late.lag_ms) == (17, 37, 7)
    assert (decode(made).ttft_ms, decode(made).e2e_ms) == (10, 30)


def test_tgis_events_are_read_as_well() -> None:
    token = {"id": 1, "text": " a", "logprob": -1.0, "special": False}
    stream = event(index=1, token=token, generated_text=None, details=None)
    last = event(index=2, token=token, generated_text=" a a", details={"finish_reason": "length", "generated_tokens": 2, "input_length": 9})
    record = decode(exchange((10, stream), (30, last)), 2)
    assert (record.failure, record.ttft_ms, record.output_tokens, record.input_tokens) == (None, 10, 2, 9)
    assert record.finish_reason == "length"


def test_cached_tokens_and_the_models_own_count_are_kept() -> None:
    told = event(choices=[], usage={"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}})
    made = exchange((10, text("a b")), (11, finish() + told + DONE))
    record = decode_as(made, Decoding(count_tokens=lambda text: len(text.split())))
    assert (record.cached_tokens, record.tokenizer_tokens) == (4, 2)
    assert answer_text(made) == "a b"


def test_an_exchange_survives_the_spool() -> None:
    made = exchange((10, text("a")), (20, finish() + DONE))
    made.detail, made.connect_ns, made.turn = "ü", 7, 3
    assert Exchange.from_frame(made.to_frame()) == made


@pytest.mark.parametrize("name", API_FORMATS)
def test_a_conversation_is_cut_where_answers_belong(name: str) -> None:
    """Any answer, escaped, set between the pieces makes the body that a client would have sent."""
    api, answer = API_FORMATS[name], 'He said: "0\r\n" ü'
    pieces = api.pieces("m", ["first", "second"], 16, {"seed": 1})
    body = json.loads(pieces[0] + json.dumps(answer)[1:-1].encode() + pieces[1])
    texts = body["messages"][1]["content"] if name == "chat" else body.get("prompt", body.get("inputs"))
    assert answer in texts
    assert (body.get("parameters") or body)["seed"] == 1
    assert api.pieces("m", ["alone"], 16, {}) == (b"".join(api.pieces("m", ["alone"], 16, {})),)


def test_a_request_asks_for_a_stream_with_usage() -> None:
    [piece] = API_FORMATS["completions"].pieces("m", [[1, 2]], 16, {"ignore_eos": True})
    body = json.loads(piece)
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert (body["prompt"], body["max_tokens"], body["ignore_eos"]) == ([1, 2], 16, True)


def test_token_ids_where_only_text_goes_are_refused() -> None:
    with pytest.raises(ApiFormatError):
        API_FORMATS["chat"].pieces("m", [[1, 2]], 16, {})
