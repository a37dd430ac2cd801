"""The response parser reads what servers really send, whatever way the network splits it, and refuses what is no response."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.benchmark.load.http1 import MalformedResponseError, ResponseParser

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nKeep-Alive: timeout=5, max=100\r\n\r\n"


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` in pieces, cut at the given places."""
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True) if start < end]


def parse(pieces: list[bytes]) -> tuple[ResponseParser, bytes]:
    parser = ResponseParser()
    return parser, b"".join(parser.feed(piece) for piece in pieces)


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
    parser, body = parse(split(chunked(chunks, extension, trailer), cuts))
    assert parser.complete
    assert parser.keep_alive
    assert body == b"".join(chunks)


def test_what_looks_like_an_end_is_not_taken_for_one() -> None:
    """llama.cpp's head ends in `max=100 CRLF CRLF`, whose last bytes are those of a last chunk."""
    parser, body = parse([HEAD])
    assert (parser.complete, body) == (False, b"")
    assert parser.feed(b"5\r\n0\r\n\r\n\r\n") == b"0\r\n\r\n"
    assert not parser.complete
    parser.feed(b"0\r\n\r\n")
    assert parser.complete


def test_content_length_and_connection_close() -> None:
    parser, body = parse([b"HTTP/1.1 503 Unavailable\r\nContent-Length: 4\r\nConnection: close\r\n\r\nab", b"cd"])
    assert (parser.status, parser.complete, parser.keep_alive, body) == (503, True, False, b"abcd")


def test_a_body_without_framing_ends_with_the_connection() -> None:
    parser, body = parse([b"HTTP/1.0 200 OK\r\n\r\nabc"])
    assert (parser.complete, parser.keep_alive, body) == (False, False, b"abc")
    assert parser.end_of_stream()


def test_a_chunked_body_cut_short_is_not_complete() -> None:
    parser, _ = parse([HEAD, b"5\r\nab"])
    assert not parser.end_of_stream()


def test_interim_responses_are_passed_over() -> None:
    parser, body = parse([b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"])
    assert (parser.status, body) == (200, b"x")


def test_statuses_without_a_body_end_with_their_head() -> None:
    parser, _ = parse([b"HTTP/1.1 204 No Content\r\n\r\n"])
    assert parser.complete


@pytest.mark.parametrize(
    "response",
    [
        b"220 smtp.example ESMTP\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        HEAD + b"zz\r\n",
        HEAD + b"1\r\nab\r\n",
        HEAD + b"0\r\n\r\nmore",
        b"x" * 70_000,
        HEAD + b"1" * 5_000,
    ],
)
def test_what_is_no_response_is_refused(response: bytes) -> None:
    with pytest.raises(MalformedResponseError):
        parse([response])
