"""The OpenAI `/v1/completions` protocol: request bodies before the run, and what an exchange means after it.

Definitions follow docs/metrics.md: the first token is the first chunk with non-empty content or reasoning text; the last token is the
last such chunk, so that a trailing usage chunk lengthens nothing; token counts come from `usage`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from assets.benchmark.load.client import Exchange
from assets.benchmark.load.sse import SseDecoder

COMPLETIONS_PATH = "/v1/completions"
DETAIL_CHARACTERS = 500
FAILURE_KINDS = (
    "connect",
    "timeout",
    "disconnected",
    "malformed_http",
    "http_4xx",
    "http_5xx",
    "http_other",
    "malformed_sse",
    "server_error",
    "empty_output",
    "early_stop",
)

Prompt = str | Sequence[int]


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request, decoded. `start_ns` and `end_ns` are `perf_counter_ns`: the send, and the last token (or the failure).

    `token_gaps_ms` are the gaps between chunks that carry text; `chunks` is how many such chunks came. `failure` is None or one of
    FAILURE_KINDS; latencies of a failed request are kept as evidence and left out of every summary.
    """

    index: int
    start_ns: int
    end_ns: int
    connect_ms: float | None
    ttft_ms: float | None
    tpot_ms: float | None
    e2e_ms: float | None
    token_gaps_ms: tuple[float, ...]
    chunks: int
    input_tokens: int | None
    output_tokens: int | None
    usage_reported: bool
    finish_reason: str | None
    failure: str | None
    detail: str


def completion_body(model: str, prompt: Prompt, output_tokens: int, extra: Mapping[str, object]) -> bytes:
    """The body of one streaming completion request; `extra` holds what an engine needs or understands beyond the standard."""
    body: dict[str, object] = {
        "model": model,
        "prompt": prompt if isinstance(prompt, str) else list(prompt),
        "max_tokens": output_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **extra,
    }
    return json.dumps(body, separators=(",", ":")).encode("utf-8")


@dataclass(slots=True)
class _Stream:
    """What the events of one stream have said so far."""

    token_stamps: list[int]
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None
    ended: bool = False
    failure: str | None = None
    detail: str = ""

    def take(self, stamp_ns: int, data: bytes) -> None:
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
        else:
            self._take_usage(event.get("usage"))
            choices = event.get("choices")
            if isinstance(choices, list) and choices and isinstance(choices[0], dict):
                self._take_choice(stamp_ns, choices[0])

    def _take_choice(self, stamp_ns: int, choice: dict[str, Any]) -> None:
        delta = choice.get("delta")
        source = delta if isinstance(delta, dict) else choice
        if any(source.get(key) for key in ("text", "content", "reasoning_content", "reasoning")):
            self.token_stamps.append(stamp_ns)
        reason = choice.get("finish_reason")
        if isinstance(reason, str):
            self.finish_reason = reason

    def _take_usage(self, usage: object) -> None:
        if isinstance(usage, dict):
            prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
            self.input_tokens = prompt if isinstance(prompt, int) else self.input_tokens
            self.output_tokens = completion if isinstance(completion, int) else self.output_tokens

    def _fail(self, failure: str, detail: str) -> None:
        if self.failure is None:
            self.failure, self.detail = failure, detail


def _http_failure(exchange: Exchange) -> tuple[str, str] | None:
    if exchange.failure is not None:
        return exchange.failure, exchange.detail
    if exchange.status == 200:
        return None
    family = {4: "http_4xx", 5: "http_5xx"}.get(exchange.status // 100, "http_other")
    text = b"".join(data for _, data in exchange.body).decode("utf-8", "replace")
    return family, f"HTTP {exchange.status}: {' '.join(text.split())}"


def decode(exchange: Exchange, expected_output_tokens: int | None = None) -> RequestRecord:
    """What an exchange means. With `expected_output_tokens`, a shorter output counts as the failure `early_stop`."""
    stream = _Stream([])
    failed = _http_failure(exchange)
    if exchange.status == 200:
        decoder = SseDecoder()
        for stamp, data in exchange.body:
            for event in decoder.feed(data):
                stream.take(stamp, event)
        if failed is None:
            failed = _stream_failure(stream, decoder.pending, expected_output_tokens)
    stamps = stream.token_stamps
    usage_reported = stream.output_tokens is not None
    output_tokens = stream.output_tokens if usage_reported else (len(stamps) if exchange.status == 200 else None)
    span_ms = (stamps[-1] - stamps[0]) / 1e6 if stamps else None
    failure, detail = failed or (None, "")
    return RequestRecord(
        index=exchange.index,
        start_ns=exchange.start_ns,
        end_ns=stamps[-1] if stamps and failure is None else exchange.end_ns,
        connect_ms=exchange.connect_ms,
        ttft_ms=(stamps[0] - exchange.start_ns) / 1e6 if stamps else None,
        tpot_ms=span_ms / (output_tokens - 1) if span_ms is not None and output_tokens is not None and output_tokens > 1 else None,
        e2e_ms=(stamps[-1] - exchange.start_ns) / 1e6 if stamps else None,
        token_gaps_ms=tuple((after - before) / 1e6 for before, after in pairwise(stamps)),
        chunks=len(stamps),
        input_tokens=stream.input_tokens,
        output_tokens=output_tokens,
        usage_reported=usage_reported,
        finish_reason=stream.finish_reason,
        failure=failure,
        detail=detail[:DETAIL_CHARACTERS],
    )


def _stream_failure(stream: _Stream, torn: bool, expected_output_tokens: int | None) -> tuple[str, str] | None:
    if stream.failure is not None:
        return stream.failure, stream.detail
    if not stream.ended and (torn or stream.finish_reason is None):
        return "malformed_sse", "the stream ended without [DONE] and without a finish_reason"
    if not stream.token_stamps:
        return "empty_output", "the stream carried no text"
    if expected_output_tokens is not None and stream.output_tokens is not None and stream.output_tokens < expected_output_tokens:
        return "early_stop", f"{stream.output_tokens} of {expected_output_tokens} tokens, finish_reason {stream.finish_reason}"
    return None
