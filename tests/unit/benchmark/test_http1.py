"""The response parser reads what servers really send, whatever way the network splits it, and refuses what is no response."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.benchmark.load.http1 import ChunkWalker, Framing, Head, MalformedResponseError, body_spans, read_head

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nKeep-Alive: timeout=5, max=100\r\n\r\n"


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` in pieces, cut at the given places."""
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True) if start < end]


@dataclass(frozen=True)
class Parsed:
    """A response as the client reads it: asked again after every piece, on one growing buffer."""

    head: Head | None
    body: bytes
    complete: bool


def parse(pieces: list[bytes]) -> Parsed:
    buffer, head, walker, complete = bytearray(), None, None, False
    for piece in pieces:
        buffer += piece
        head = head or read_head(buffer)
        if head is None:
            continue
        if head.framing is Framing.CHUNKED:
            walker = walker or ChunkWalker(head.body_start)
            walker.advance(buffer)
            complete = walker.complete
        else:
            complete = head.framing is Framing.NO_BODY or (head.framing is Framing.LENGTH and len(buffer) - head.body_start == head.length)
    body = b"" if head is None else b"".join(bytes(buffer[start:end]) for start, end in body_spans(buffer, head))
    return Parsed(head, body, complete)


def chunked(chunks: list[bytes], extension: bytes = b"", trailer: bytes = b"") -> bytes:
    framed = b"".join(b"%x%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    return HEAD + framed + b"0" + extension + b"\r\n" + trailer + b"\r\n"


@settings(max_examples=100)
@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40) | st.sampled_from([b"0\r\n\r\n", b"\r\n\r\n", b"data: 10\r\n\r\n"]), max_size=8),
    extension=st.sampled_from([b"", b";name=value"]),
    trailer=st.sampled_from([b"", b"X-Checksum: 1\r\n"]),
    cuts=st.lists(st.integers(min_value=0, max_value=10_000), max_size=20),
)
def test_any_split_of_a_chunked_response_gives_the_same_body(
    chunks: list[bytes], extension: bytes, trailer: bytes, cuts: list[int]
) -> None:
    parsed = parse(split(chunked(chunks, extension, trailer), cuts))
    assert parsed.complete
    assert parsed.head is not None
    assert parsed.head.keep_alive
    assert parsed.body == b"".join(chunks)


def test_what_looks_like_an_end_is_not_taken_for_one() -> None:
    """llama.cpp's head ends in `max=100 CRLF CRLF`, whose last bytes are those of a last chunk."""
    assert not parse([HEAD]).complete
    data = b"5\r\n0\r\n\r\n\r\n"
    assert parse([HEAD, data]) == Parsed(parse([HEAD]).head, b"0\r\n\r\n", False)
    assert parse([HEAD, data, b"0\r\n\r\n"]).complete


def test_content_length_and_connection_close() -> None:
    parsed = parse([b"HTTP/1.1 503 Unavailable\r\nContent-Length: 4\r\nConnection: close\r\n\r\nab", b"cd"])
    assert parsed.head is not None
    assert (parsed.head.status, parsed.complete, parsed.head.keep_alive, parsed.body) == (503, True, False, b"abcd")


def test_a_body_without_framing_ends_with_the_connection() -> None:
    parsed = parse([b"HTTP/1.0 200 OK\r\n\r\nabc"])
    assert parsed.head is not None
    assert (parsed.head.framing, parsed.head.keep_alive, parsed.body) == (Framing.UNTIL_CLOSE, False, b"abc")


def test_a_chunked_body_cut_short_is_not_complete_and_keeps_what_came() -> None:
    parsed = parse([HEAD, b"5\r\nab"])
    assert (parsed.complete, parsed.body) == (False, b"ab")


def test_interim_responses_are_passed_over() -> None:
    parsed = parse([b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"])
    assert parsed.head is not None
    assert (parsed.head.status, parsed.body) == (200, b"x")


def test_statuses_without_a_body_end_with_their_head() -> None:
    assert parse([b"HTTP/1.1 204 No Content\r\n\r\n"]).complete


@pytest.mark.parametrize(
    "response",
    [
        b"220 smtp.example ESMTP\r\n\r\n",
        b"220 no line end",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        HEAD + b"zz\r\n",
        HEAD + b"zz",
        HEAD + b"1\r\nab\r\n",
        HEAD + b"0\r\n\r\nmore",
        b"HTTP/1.1 200 OK\r\n" + b"x" * 70_000,
        HEAD + b"1" * 5_000,
        HEAD + b"1;" + b"x" * 5_000,
        HEAD + b"0\r\n" + b"x" * 70_000,
    ],
)
def test_what_is_no_response_is_refused(response: bytes) -> None:
    with pytest.raises(MalformedResponseError):
        parse([response])
