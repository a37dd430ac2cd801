"""What an exchange means, found out after the run: HTTP framing, server-sent events, JSON, tokens and their times.

Definitions follow docs/metrics.md: the first token is the first event with non-empty content, reasoning or tool-call text; the last token
is the last such event, so that a trailing usage event lengthens nothing; token counts come from the server's usage. An event's time is
that of the arrival which brought its last byte, so that no way of cutting the stream into packets changes what is read.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

from assets.benchmark.load.exchange import NO_STAMP, Exchange
from assets.benchmark.load.http1 import Head, MalformedResponseError, body_spans, read_head
from assets.benchmark.load.sse import Events, read_events

DETAIL_CHARACTERS = 500
FAILURE_KINDS = (
    "connect",
    "timeout",
    "disconnected",
    "malformed_http",
    "response_too_large",
    "http_3xx",
    "http_429",
    "http_4xx",
    "http_5xx",
    "http_other",
    "not_an_event_stream",
    "malformed_sse",
    "server_error",
    "empty_output",
    "early_stop",
)
_STATUS_FAMILIES = {3: "http_3xx", 4: "http_4xx", 5: "http_5xx"}
# Where the text of a delta may be. What a reasoning model thinks and what a tool is called with are tokens like any other.
_TEXT_KEYS = ("text", "content", "reasoning_content", "reasoning", "refusal", "tool_calls")

TokenCounter = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request, decoded. Instants are nanoseconds of CLOCK_MONOTONIC; `index` is that of the chain, `turn` the place in it.

    Latencies run from `clock_ns`: the send in a closed loop, the scheduled instant in an open one. `lag_ms` is how much later than due
    the request went out, connecting left out. `receive_lag_ms` is how much later than the kernel we saw the first token, None where the
    kernel does not say. `token_gaps_ms` are the gaps between events that carry text; `chunks` is how many such events came.
    `cached_tokens` is how much of the prompt the server says it had already; `tokenizer_tokens` is the output counted by the model's own
    tokenizer, where that is at hand. `failure` is None or one of FAILURE_KINDS; latencies of a failed request are kept as evidence and
    left out of every summary.
    """

    index: int
    turn: int
    due_ns: int
    start_ns: int
    end_ns: int
    clock_ns: int
    lag_ms: float
    connect_ms: float | None
    receive_lag_ms: float | None
    ttft_ms: float | None
    tpot_ms: float | None
    e2e_ms: float | None
    token_gaps_ms: tuple[float, ...]
    chunks: int
    input_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    tokenizer_tokens: int | None
    usage_reported: bool
    finish_reason: str | None
    failure: str | None
    detail: str


@dataclass(frozen=True, slots=True)
class Decoding:
    """How records are read. `from_due`: latencies run from the scheduled instant. `output_tokens`: fewer than these are an early stop."""

    from_due: bool = False
    output_tokens: int | None = None
    count_tokens: TokenCounter | None = None


def decode(exchange: Exchange, how: Decoding = Decoding()) -> RequestRecord:
    """The record of an exchange; whatever is wrong with it is in the record."""
    response = _read_response(exchange)
    stream, failed = response.stream, response.failure
    if failed is None and exchange.status == 200:
        failed = _stream_failure(stream, response.torn, how.output_tokens)
    clock_ns = exchange.due_ns if how.from_due else exchange.start_ns
    arrivals = [(exchange.wire_ns()[i], exchange.user_ns[i]) for i in stream.token_arrivals]
    stamps = [wire for wire, _ in arrivals]
    usage_reported = stream.output_tokens is not None
    output_tokens = stream.output_tokens if usage_reported else (len(stamps) if exchange.status == 200 else None)
    span_ms = (stamps[-1] - stamps[0]) / 1e6 if stamps else None
    connect_ns = 0 if exchange.connect_ns == NO_STAMP else exchange.connect_ns
    failure, detail = failed or (None, "")
    return RequestRecord(
        index=exchange.chain,
        turn=exchange.turn,
        due_ns=exchange.due_ns,
        start_ns=exchange.start_ns,
        end_ns=stamps[-1] if stamps and failure is None else exchange.end_ns,
        clock_ns=clock_ns,
        lag_ms=max(0.0, (exchange.start_ns - exchange.due_ns - (0 if how.from_due else connect_ns)) / 1e6),
        connect_ms=None if exchange.connect_ns == NO_STAMP else connect_ns / 1e6,
        receive_lag_ms=(arrivals[0][1] - arrivals[0][0]) / 1e6 if arrivals and exchange.has_kernel_stamps else None,
        ttft_ms=(stamps[0] - clock_ns) / 1e6 if stamps else None,
        tpot_ms=span_ms / (output_tokens - 1) if span_ms is not None and output_tokens is not None and output_tokens > 1 else None,
        e2e_ms=(stamps[-1] - clock_ns) / 1e6 if stamps else None,
        token_gaps_ms=tuple((after - before) / 1e6 for before, after in pairwise(stamps)),
        chunks=len(stamps),
        input_tokens=stream.input_tokens,
        cached_tokens=stream.cached_tokens,
        output_tokens=output_tokens,
        tokenizer_tokens=how.count_tokens(stream.text) if how.count_tokens is not None and stamps else None,
        usage_reported=usage_reported,
        finish_reason=stream.finish_reason,
        failure=failure,
        detail=detail[:DETAIL_CHARACTERS],
    )


def response_body(exchange: Exchange) -> bytes:
    """The body as far as it came, for answers that are no stream. Raises MalformedResponseError."""
    head = read_head(exchange.raw)
    return b"" if head is None else b"".join(exchange.raw[start:end] for start, end in body_spans(exchange.raw, head))


def answer_text(exchange: Exchange) -> str:
    """The text of a stream, for a conversation that goes on with it; empty where there is none."""
    return _read_response(exchange).stream.text


@dataclass(slots=True)
class _Stream:
    """What the events of one stream have said so far. `token_arrivals` are indices of arrivals."""

    token_arrivals: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None
    ended: bool = False
    failure: tuple[str, str] | None = None

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def take(self, arrival: int, data: bytes) -> None:
        if data.strip() == b"[DONE]":
            self.ended = True
            return
        try:
            event = json.loads(data)
        except ValueError:
            self._fail("malformed_sse", f"an event is not JSON: {data[:200]!r}")
            return
        if not isinstance(event, dict):
            self._fail("malformed_sse", f"an event is not a JSON object: {data[:200]!r}")
        elif event.get("error"):
            self._fail("server_error", json.dumps(event["error"]))
        elif "token" in event:
            self._take_tgi(arrival, event)
        else:
            self._take_usage(event.get("usage"))
            choices = event.get("choices")
            if isinstance(choices, list) and choices and isinstance(choices[0], dict):
                self._take_choice(arrival, choices[0])

    def _take_choice(self, arrival: int, choice: dict[str, Any]) -> None:
        delta = choice.get("delta")
        source = delta if isinstance(delta, dict) else choice
        carried = [source[key] for key in _TEXT_KEYS if source.get(key)]
        if carried:
            self.token_arrivals.append(arrival)
            self.texts += [text for text in carried if isinstance(text, str)]
        reason = choice.get("finish_reason")
        if isinstance(reason, str):
            self.finish_reason = reason

    def _take_usage(self, usage: object) -> None:
        if isinstance(usage, dict):
            self.input_tokens = _count(usage.get("prompt_tokens"), self.input_tokens)
            self.output_tokens = _count(usage.get("completion_tokens"), self.output_tokens)
            details = usage.get("prompt_tokens_details")
            if isinstance(details, dict):
                self.cached_tokens = _count(details.get("cached_tokens"), self.cached_tokens)

    def _take_tgi(self, arrival: int, event: dict[str, Any]) -> None:
        """TGI's `/generate_stream`: an event a token, the last of which has the details."""
        token, details = event["token"], event.get("details")
        if isinstance(token, dict) and token.get("text"):
            self.token_arrivals.append(arrival)
            self.texts.append(str(token["text"]))
        if isinstance(details, dict):
            self.input_tokens = _count(details.get("input_length"), self.input_tokens)
            self.output_tokens = _count(details.get("generated_tokens"), self.output_tokens)
            reason = details.get("finish_reason")
            self.finish_reason = str(reason) if reason else None
        self.ended = self.ended or event.get("generated_text") is not None

    def _fail(self, failure: str, detail: str) -> None:
        if self.failure is None:
            self.failure = failure, detail


@dataclass(slots=True)
class _Response:
    stream: _Stream
    torn: bool
    failure: tuple[str, str] | None


def _read_response(exchange: Exchange) -> _Response:
    stream, torn = _Stream(), False
    failure = (exchange.failure.kind, exchange.detail) if exchange.failure.kind is not None else None
    try:
        head = read_head(exchange.raw)
        if head is not None:
            spans = body_spans(exchange.raw, head)
            body = b"".join(exchange.raw[start:end] for start, end in spans)
            wrong_head = _head_failure(head, body)
            failure = failure or wrong_head
            if wrong_head is None:
                events = read_events(body)
                torn = events.torn
                for arrival, data in zip(_arrivals_of(events, spans, exchange), events.data, strict=True):
                    stream.take(arrival, data)
    except MalformedResponseError as error:
        failure = failure or ("malformed_http", str(error))
    return _Response(stream, torn, failure)


def _arrivals_of(events: Events, spans: list[tuple[int, int]], exchange: Exchange) -> list[int]:
    """Which arrival brought each event's last byte: from the offset in the body to that in the response, and so to the arrival."""
    body_ends = list(accumulate(end - start for start, end in spans))
    arrivals: list[int] = []
    for offset in events.completed_at:
        span = bisect_right(body_ends, offset)
        raw_offset = spans[span][1] - (body_ends[span] - offset)
        arrivals.append(bisect_right(exchange.arrival_ends, raw_offset))
    return arrivals


def _head_failure(head: Head, body: bytes) -> tuple[str, str] | None:
    """What the status line and the headers alone say is wrong."""
    text = " ".join(body[: 4 * DETAIL_CHARACTERS].decode("utf-8", "replace").split())
    if head.status == 429:
        return "http_429", f"HTTP 429: {text}"
    if head.status != 200:
        location = f" to {head.headers['location']}" if "location" in head.headers else ""
        return _STATUS_FAMILIES.get(head.status // 100, "http_other"), f"HTTP {head.status}{location}: {text}"
    encoding = head.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        return "not_an_event_stream", f"the stream is encoded with {encoding}, which we asked the server not to do"
    content_type = head.headers.get("content-type", "text/event-stream").lower()
    if not content_type.startswith("text/event-stream"):
        return "not_an_event_stream", f"the answer is of type {content_type}: {text}"
    return None


def _stream_failure(stream: _Stream, torn: bool, expected_output_tokens: int | None) -> tuple[str, str] | None:
    if stream.failure is not None:
        return stream.failure
    if not stream.ended and (torn or stream.finish_reason is None):
        return "malformed_sse", "the stream ended without [DONE] and without a finish_reason"
    if not stream.token_arrivals:
        return "empty_output", "the stream carried no text"
    if expected_output_tokens is not None and stream.output_tokens is not None and stream.output_tokens < expected_output_tokens:
        return "early_stop", f"{stream.output_tokens} of {expected_output_tokens} tokens, finish_reason {stream.finish_reason}"
    return None


def _count(value: object, otherwise: int | None) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else otherwise
