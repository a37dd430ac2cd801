"""A raw asyncio HTTP/1.1 client that stamps on arrival and leaves the parsing for later.

What happens between a byte's arrival and its time stamp falsifies a latency, so `data_received` does three things only: take the
time, append the bytes, and look whether they can be the end of the response. Event streams and JSON are decoded after the load point
(`completions.decode`).
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import cast
from urllib.parse import SplitResult, urlsplit

from assets.benchmark.load.http1 import MalformedResponseError, ResponseParser

CONNECT_TIMEOUT_S = 10.0
# A connection that ends this soon after a request was put on it was being closed already; later, the server has worked on the request.
STALE_WITHIN_S = 0.05
# Every complete chunked response ends in CRLF CRLF. That proves nothing (a head ends so too), so the framing is parsed then.
_END_MARK = b"\r\n\r\n"


class EndpointError(ValueError):
    """The URL cannot be used; the message says why."""


@dataclass(slots=True)
class Endpoint:
    """An OpenAI-compatible server. `reuse_connections` turns off by itself when the server closes them without saying so."""

    host: str
    port: int
    base_path: str
    tls: ssl.SSLContext | None = None
    headers: tuple[tuple[str, str], ...] = ()
    reuse_connections: bool = True

    @classmethod
    def parse(cls, url: str, api_key: str | None = None) -> Endpoint:
        """From `http://host:port` or `https://host/prefix`, with or without the trailing `/v1`. Raises EndpointError."""
        malformed = EndpointError(f"{url!r} is not the address of a server: expected http://HOST:PORT or https://HOST")
        try:
            parts = urlsplit(url)
        except ValueError:
            raise malformed from None
        if parts.scheme not in {"http", "https"} or not parts.hostname or not _is_printable_ascii(url):
            raise malformed
        if parts.username or parts.query or parts.fragment:
            raise EndpointError("the address must have no user name, query or fragment: give a key with --api-key")
        if api_key is not None and not _is_printable_ascii(api_key):
            raise EndpointError("the key has characters that no HTTP header may have: check DYNO_API_KEY or --api-key")
        headers = (("Authorization", f"Bearer {api_key}"),) if api_key else ()
        # made once: reading the machine's certificates takes as long as some first tokens
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        return cls(parts.hostname, _port(parts), parts.path.rstrip("/").removesuffix("/v1"), tls, headers)

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """The bytes of one request, built before the run."""
        authority = f"[{self.host}]" if ":" in self.host else self.host
        default_port = 443 if self.tls else 80
        lines = [
            f"{method} {self.base_path}{path} HTTP/1.1",
            f"Host: {authority}" + ("" if self.port == default_port else f":{self.port}"),
            "Accept: text/event-stream, application/json",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


@dataclass(slots=True)
class Exchange:
    """One request and what came back. Stamps are `time.perf_counter_ns`; `body` pairs each arrival's stamp with its body bytes.

    `failure` is None, or one of `connect`, `timeout`, `disconnected`, `malformed_http`; what the body says is not judged here.
    """

    index: int
    start_ns: int = 0
    end_ns: int = 0
    connect_ms: float | None = None
    status: int = 0
    body: list[tuple[int, bytes]] = field(default_factory=list)
    failure: str | None = None
    detail: str = ""


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self.closed = False
        self.used = False
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._finished: asyncio.Future[None] | None = None
        self._parser = ResponseParser()
        self._unparsed: list[tuple[int, bytes]] = []
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports do not derive from asyncio's

    def data_received(self, data: bytes) -> None:
        now = perf_counter_ns()
        if self._exchange is None:  # nothing was asked for
            self.close()
            return
        self._unparsed.append((now, data))
        self._tail = data[-4:] if len(data) >= 4 else (self._tail + data)[-4:]
        if not self._parser.chunked or self._tail == _END_MARK:
            self._parse()

    def connection_lost(self, exc: Exception | None) -> None:
        now = perf_counter_ns()
        self.closed = True
        if self._exchange is None:
            return
        self._parse()
        if self._exchange is not None:
            properly = exc is None and self._parser.end_of_stream()
            detail = "" if properly else f"the server closed the connection ({exc or 'end of file'})"
            self._finish(now, None if properly else "disconnected", detail)

    async def perform(self, request: bytes, exchange: Exchange, timeout_s: float) -> None:
        """Send `request`, fill `exchange`; every outcome is in it, nothing but cancellation is raised."""
        if self._transport is None or self._exchange is not None:
            raise RuntimeError("perform needs an open connection without a request in flight")
        self._parser, self._tail = ResponseParser(), b""
        self._exchange = exchange
        self._finished = self._loop.create_future()
        timer = self._loop.call_later(timeout_s, self._expire, timeout_s)
        self.used = True
        exchange.start_ns = perf_counter_ns()
        self._transport.write(request)
        try:
            await self._finished
        finally:
            timer.cancel()
            if self._exchange is not None:  # cancelled in mid-flight
                self._exchange = None
                self.close()

    def close(self) -> None:
        """Drop the connection at once."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def _expire(self, timeout_s: float) -> None:
        if self._exchange is not None:
            self._parse()
        if self._exchange is not None:
            self._finish(perf_counter_ns(), "timeout", f"no complete response within {timeout_s:g} s")
            self.close()

    def _parse(self) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        pending, self._unparsed = self._unparsed, []
        for stamp, data in pending:
            try:
                body = self._parser.feed(data)
            except MalformedResponseError as error:
                self._finish(stamp, "malformed_http", str(error))
                self.close()
                return
            if body:
                exchange.body.append((stamp, body))
        if self._parser.complete:
            self._finish(pending[-1][0], None, "")
            if not self._parser.keep_alive:
                self.close()

    def _finish(self, now_ns: int, failure: str | None, detail: str) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None or self._finished is None:
            return
        exchange.end_ns, exchange.status, exchange.failure, exchange.detail = now_ns, self._parser.status, failure, detail
        if not self._finished.done():
            self._finished.set_result(None)


class Slot:
    """One stream of a closed loop: it keeps a connection and opens another when the server has closed it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._connection: Connection | None = None
        self._connect_ms: float | None = None

    async def connect(self) -> Connection:
        """An open connection, opened now when there is none to reuse. Raises OSError or TimeoutError."""
        connection = self._connection
        if connection is not None and not connection.closed and (self._endpoint.reuse_connections or not connection.used):
            self._connect_ms = None if connection.used else self._connect_ms
            return connection
        self.close()
        started = perf_counter_ns()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, self._connection = await asyncio.get_running_loop().create_connection(
                Connection, self._endpoint.host, self._endpoint.port, ssl=self._endpoint.tls
            )
        self._connect_ms = (perf_counter_ns() - started) / 1e6
        return self._connection

    async def perform(self, index: int, request: bytes, timeout_s: float) -> Exchange:
        """One request with its outcome. The clock starts at the send, after the connection is there.

        A server that closes an idle connection as the request leaves (within STALE_WITHIN_S) has not handled it: the request is sent once
        more, on a fresh connection and with a fresh start stamp, and connections are not reused from then on.
        """
        while True:
            exchange = Exchange(index)
            try:
                connection = await self.connect()
            except (OSError, TimeoutError) as error:
                exchange.start_ns = exchange.end_ns = perf_counter_ns()
                exchange.failure, exchange.detail = "connect", describe_connect_error(self._endpoint, error)
                return exchange
            exchange.connect_ms = self._connect_ms
            reused = connection.used
            await connection.perform(request, exchange, timeout_s)
            unanswered = exchange.failure == "disconnected" and not exchange.status and not exchange.body
            if not (reused and unanswered and exchange.end_ns - exchange.start_ns < STALE_WITHIN_S * 1e9):
                return exchange
            self._endpoint.reuse_connections = False

    def close(self) -> None:
        """Close the connection, if one is open."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _is_printable_ascii(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _port(parts: SplitResult) -> int:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise EndpointError(f"{parts.netloc!r} has no valid port: ports are 1 to 65535")
    return port or (443 if parts.scheme == "https" else 80)


def describe_connect_error(endpoint: Endpoint, error: Exception) -> str:
    """A sentence for a person about a connection that did not come about."""
    reason = (
        f"no answer within {CONNECT_TIMEOUT_S:g} s" if isinstance(error, TimeoutError) else (getattr(error, "strerror", None) or str(error))
    )
    return f"cannot connect to {endpoint.host}:{endpoint.port}: {reason}"
