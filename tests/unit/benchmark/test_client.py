"""The connection finds the end of a response however its bytes arrive, and stamps every arrival."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.benchmark.load.client import Connection, Endpoint, EndpointError, Exchange
from assets.benchmark.load.completions import decode
from tests.unit.benchmark.test_completions import DONE, finish, text, usage
from tests.unit.benchmark.test_http1 import chunked, split


class Pipe(asyncio.Transport):
    """A transport to nowhere: what the server says is fed by the test."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)

    def abort(self) -> None:
        self.aborted = True


async def receive(pieces: list[bytes], close: bool = False) -> tuple[Exchange, Connection]:
    connection, exchange = Connection(), Exchange(0)
    connection.connection_made(Pipe())
    task = asyncio.ensure_future(connection.perform(b"GET / HTTP/1.1\r\n\r\n", exchange, 10.0))
    await asyncio.sleep(0)
    for piece in pieces:
        connection.data_received(piece)
    if close:
        connection.connection_lost(None)
    await task
    return exchange, connection


@settings(max_examples=60)
@given(
    words=st.lists(st.sampled_from(["a", "0", "\r\n0\r\n\r\n", "max=100", "ü"]), min_size=1, max_size=6),
    events_per_chunk=st.integers(min_value=1, max_value=3),
    cuts=st.lists(st.integers(min_value=0, max_value=10_000), max_size=30),
)
def test_any_split_of_a_stream_gives_the_same_record(words: list[str], events_per_chunk: int, cuts: list[int]) -> None:
    events = [text(""), *(text(word) for word in words), finish(), usage(5, len(words)), DONE]
    chunks = [b"".join(events[i : i + events_per_chunk]) for i in range(0, len(events), events_per_chunk)]
    exchange, connection = asyncio.run(receive(split(chunked(chunks), cuts)))
    record = decode(exchange, len(words))
    assert record.failure is None
    assert (record.chunks, record.output_tokens, record.input_tokens) == (len(words), len(words), 5)
    stamps = [stamp for stamp, _ in exchange.body]
    assert exchange.start_ns <= stamps[0]
    assert stamps == sorted(stamps)
    assert exchange.end_ns >= stamps[-1]
    assert not connection.closed


def test_a_connection_lost_in_mid_stream_is_a_failure_with_what_had_come() -> None:
    response = chunked([text("a"), text("b"), finish(), DONE])
    exchange, _ = asyncio.run(receive([response[: response.index(b'"b"') + 20]], close=True))
    assert exchange.failure == "disconnected"
    assert decode(exchange).chunks >= 1


def test_an_unframed_response_ends_with_its_connection() -> None:
    exchange, _ = asyncio.run(receive([b"HTTP/1.1 200 OK\r\n\r\n" + text("a") + finish() + DONE], close=True))
    assert decode(exchange).failure is None


def test_bytes_that_are_no_response_end_the_request() -> None:
    exchange, connection = asyncio.run(receive([b"220 smtp.example ESMTP\r\n\r\n"]))
    assert exchange.failure == "malformed_http"
    assert connection.closed


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8000", ("127.0.0.1", 8000, "", False)),
        ("http://127.0.0.1:8000/v1/", ("127.0.0.1", 8000, "", False)),
        ("https://api.example/openai/v1", ("api.example", 443, "/openai", True)),
        ("http://[::1]:8000", ("::1", 8000, "", False)),
    ],
)
def test_addresses(url: str, expected: tuple[str, int, str, bool]) -> None:
    endpoint = Endpoint.parse(url)
    assert (endpoint.host, endpoint.port, endpoint.base_path, endpoint.tls is not None) == expected


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://host",
        "http://",
        "http://user:secret@host",
        "http://host:99999",
        "http://host:0",
        "http://host?x=1",
        "http://[::1",
        "http://hö.st",
    ],
)
def test_bad_addresses_are_refused_without_repeating_a_secret(url: str) -> None:
    with pytest.raises(EndpointError) as caught:
        Endpoint.parse(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["k\u20acy", "key\r\nX-Evil: 1", "key\n"])
def test_a_key_that_no_header_may_carry_is_refused_without_repeating_it(key: str) -> None:
    with pytest.raises(EndpointError, match="DYNO_API_KEY") as caught:
        Endpoint.parse("http://host", key)
    assert key not in str(caught.value)


def test_wherever_a_response_is_cut_in_two_its_end_is_seen() -> None:
    """Head and body may come at once up to the last line break: an end that is not seen would wait for the timeout."""
    response = chunked([text("a"), finish(), DONE])
    for cut in range(1, len(response)):
        exchange, connection = asyncio.run(asyncio.wait_for(receive([response[:cut], response[cut:]]), 1.0))
        assert (decode(exchange).failure, connection.closed) == (None, False), cut


def test_a_request_carries_its_key_and_its_length() -> None:
    request = Endpoint.parse("http://[::1]:8000/v1", "key").request("POST", "/v1/completions", b"{}")
    assert request.startswith(b"POST /v1/completions HTTP/1.1\r\nHost: [::1]:8000\r\n")
    assert b"Authorization: Bearer key\r\n" in request
    assert request.endswith(b"Content-Length: 2\r\n\r\n{}")
