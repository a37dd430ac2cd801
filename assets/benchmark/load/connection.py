"""One non-blocking HTTP connection, over TCP, TLS or a Unix socket. It carries one request at a time and stamps what arrives.

What happens between a byte's arrival and its stamp falsifies a latency, so `on_readable` stamps first, keeps the bytes, and looks only
for the end of the response. Events and JSON are decoded after the run. Where the socket is plain TCP or TLS, the kernel says when the
bytes came (SO_TIMESTAMPING, Linux: Documentation/networking/timestamping.rst), which a busy process cannot falsify at all.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from select import EPOLLIN, EPOLLOUT
from time import perf_counter_ns, time_ns
from typing import Protocol

from assets.benchmark.load.endpoint import Address
from assets.benchmark.load.exchange import NO_STAMP, Exchange, TransportFailure
from assets.benchmark.load.http1 import ChunkWalker, Framing, Head, MalformedResponseError, read_head
from assets.benchmark.load.kernel_stamps import ANCILLARY_BYTES, ask_for_stamps, kernel_stamp
from assets.benchmark.load.tls_layer import TlsLayer

CONNECT_TIMEOUT_S = 10.0
# Every complete chunked response ends so. That proves nothing (a head ends so too), so the framing is walked then.
_END_MARK = b"\r\n\r\n"


class Owner(Protocol):
    """What a connection tells the loop that it lives in."""

    receive_buffer: bytearray
    max_response_bytes: int

    def watch(self, connection: Connection, events: int) -> None:
        """Wait for `events` on the connection from now on."""

    def on_open(self, connection: Connection) -> None:
        """It can carry a request."""

    def on_exchange(self, connection: Connection, exchange: Exchange) -> None:
        """The exchange has ended, one way or the other; the connection may be closed."""

    def on_closed(self, connection: Connection, problem: str | None) -> None:
        """It is closed without a request under way; `problem` says why it could not be opened."""


class Connection:
    """Opened at once and asynchronously; `perform` when the owner has been told that it is open."""

    def __init__(self, owner: Owner, address: Address, tls: ssl.SSLContext | None, server_name: str, *, address_number: int = 0) -> None:
        """To `address`, the owner's `address_number`th. Raises OSError when no socket can be had or the connection is refused at once."""
        self._owner = owner
        self.address_number = address_number
        self._view = memoryview(owner.receive_buffer)
        self.exchange: Exchange | None = None
        self.closed = False
        self.used = False
        self.open = False
        self.connect_ns = 0
        self._began_ns = perf_counter_ns()
        self._unsent = b""
        self._head: Head | None = None
        self._walker: ChunkWalker | None = None
        self._tls: TlsLayer | None = TlsLayer(tls, server_name=server_name) if tls is not None else None
        family, target = address
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        local = family == socket.AF_UNIX
        self._stamped = ask_for_stamps(self._socket)
        try:
            # a Unix socket is connected at once, or when the server's queue has room: the kernel does not tell when to try again
            self._socket.settimeout(CONNECT_TIMEOUT_S if local else 0)
            with contextlib.suppress(BlockingIOError):
                self._socket.connect(target)
            self._socket.setblocking(False)
            if not local:
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            self._socket.close()
            raise
        owner.watch(self, EPOLLOUT)

    def fileno(self) -> int:
        """The socket's."""
        return self._socket.fileno()

    def perform(self, request: bytes, exchange: Exchange) -> None:
        """Send `request` and fill `exchange`; the owner hears of its end."""
        self.exchange, self.used = exchange, True
        self._head, self._walker = None, None
        if self._tls is not None:
            request = self._tls.encrypt(request)
        exchange.start_ns = perf_counter_ns()
        self._send(request)

    def on_events(self, events: int) -> None:
        """The socket is ready, or broken."""
        if self.open:
            if events & EPOLLOUT and self._unsent:
                self._send(self._unsent)
            if events & ~EPOLLOUT and not self.closed:
                self._on_readable()
        elif self._tls is None:
            self._on_connected()
        else:
            self._on_handshake(self._tls, events)

    def fail(self, failure: TransportFailure, detail: str) -> None:
        """End what is under way; the connection is closed."""
        exchange, self.exchange = self.exchange, None
        was_open = self.open
        self.close()
        if exchange is None:
            self._owner.on_closed(self, None if was_open else detail)
            return
        exchange.end_ns, exchange.failure, exchange.detail = perf_counter_ns(), failure, detail
        exchange.status = self._head.status if self._head is not None else 0
        _to_monotonic(exchange)
        self._owner.on_exchange(self, exchange)

    def time_out(self, timeout_s: float) -> None:
        """The response has taken too long. One that was complete and went on all the same is malformed."""
        try:
            if self._walker is not None and self.exchange is not None:
                self._walker.advance(self.exchange.raw)
        except MalformedResponseError as error:
            self.fail(TransportFailure.MALFORMED_HTTP, str(error))
        else:
            self.fail(TransportFailure.TIMEOUT, f"no complete response within {timeout_s:g} s")

    def close(self) -> None:
        """Drop the connection at once, whatever it carries."""
        if not self.closed:
            self.closed = True
            self._socket.close()

    def _on_connected(self) -> None:
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.fail(TransportFailure.CONNECT, os.strerror(code))
        else:
            self._opened()

    def _on_handshake(self, tls: TlsLayer, events: int) -> None:
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.fail(TransportFailure.CONNECT, os.strerror(code))
            return
        try:
            if events & ~EPOLLOUT:
                received = self._receive()
                if received is None:
                    return
                size, _ = received
                tls.incoming.write(self._view[:size])
                if not size:
                    self.fail(TransportFailure.CONNECT, "the server ended the connection in the TLS handshake")
                    return
            done = tls.handshake()
            self._send(tls.outgoing.read())
            if done and not self.closed:
                self._opened()
        except ssl.SSLError as error:
            self.fail(TransportFailure.CONNECT, f"TLS: {getattr(error, 'verify_message', '') or error.reason or error}")
        except OSError as error:
            self.fail(TransportFailure.CONNECT, error.strerror or str(error))

    def _opened(self) -> None:
        self.open = True
        self.connect_ns = perf_counter_ns() - self._began_ns
        self._owner.watch(self, EPOLLIN)
        self._owner.on_open(self)

    def _send(self, data: bytes) -> None:
        try:
            sent = self._socket.send(data) if data else 0
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._unsent = b""
            self._on_lost(error)
            return
        had_unsent, self._unsent = bool(self._unsent), data[sent:]
        if self._unsent or had_unsent or not self.open:
            self._owner.watch(self, EPOLLIN | EPOLLOUT if self._unsent else EPOLLIN)

    def _receive(self) -> tuple[int, int] | None:
        """Bytes into the owner's buffer: how many, and the kernel's stamp; None when there are none yet. Raises OSError."""
        try:
            if not self._stamped:
                return self._socket.recv_into(self._view), NO_STAMP
            size, ancillary, _, _ = self._socket.recvmsg_into((self._view,), ANCILLARY_BYTES)
        except BlockingIOError:
            return None
        stamp = kernel_stamp(ancillary)
        return size, NO_STAMP if stamp is None else stamp

    def _on_readable(self) -> None:
        now = perf_counter_ns()
        try:
            received = self._receive()
        except OSError as error:
            self._on_lost(error)
            return
        if received is None:
            return
        size, kernel_ns = received
        if not size:
            self._on_lost(None)
            return
        data = self._view[:size]
        if self._tls is not None:
            try:
                data = memoryview(self._tls.decrypt(data))
            except ssl.SSLError as error:
                self._on_lost(error)
                return
            if not data:
                if self._tls.ended:
                    self._on_lost(None)
                return
        exchange = self.exchange
        if exchange is None:  # nothing was asked for
            self.fail(TransportFailure.DISCONNECTED, "")
            return
        raw = exchange.raw
        raw += data
        exchange.arrival_ends.append(len(raw))
        exchange.user_ns.append(now)
        exchange.kernel_ns.append(kernel_ns)
        # in the middle of a chunked stream, as nearly always: nothing ends here
        if self._walker is None or raw.endswith(_END_MARK) or len(raw) > self._owner.max_response_bytes:
            self._look_for_end(exchange)
        if self._tls is not None and self._tls.ended and self.exchange is not None:  # its end came with the last bytes
            self._on_lost(None)

    def _look_for_end(self, exchange: Exchange) -> None:
        raw = exchange.raw
        if len(raw) > self._owner.max_response_bytes:
            self.fail(TransportFailure.RESPONSE_TOO_LARGE, f"over {self._owner.max_response_bytes} bytes came without an end")
            return
        try:
            complete = self._is_complete(raw)
        except MalformedResponseError as error:
            self.fail(TransportFailure.MALFORMED_HTTP, str(error))
            return
        if complete:
            self._complete(exchange)

    def _is_complete(self, raw: bytearray) -> bool:
        head = self._head
        if head is None:
            head = self._head = read_head(raw)
            if head is None:
                return False
            if head.framing is Framing.CHUNKED:
                self._walker = ChunkWalker(head.body_start)
        if self._walker is not None:
            if raw.endswith(_END_MARK):
                self._walker.advance(raw)
            return self._walker.complete
        if head.framing is Framing.UNTIL_CLOSE:
            return False
        excess = len(raw) - head.body_start - head.length
        if excess > 0:
            raise MalformedResponseError(f"{excess} bytes after the end of the response")
        return excess == 0

    def _complete(self, exchange: Exchange) -> None:
        head, self.exchange = self._head, None
        if head is None:
            raise RuntimeError("a response without a head cannot be complete")
        exchange.status = head.status
        if exchange.user_ns:
            exchange.end_ns = exchange.user_ns[-1]
        _to_monotonic(exchange)
        if not head.keep_alive or self._unsent:
            self.close()
        self._owner.on_exchange(self, exchange)

    def _on_lost(self, error: Exception | None) -> None:
        exchange = self.exchange
        if exchange is not None and error is None and self._head is not None and self._head.framing is Framing.UNTIL_CLOSE:
            self.close()
            self._complete(exchange)
            return
        reason = getattr(error, "strerror", None) or str(error or "end of file")
        self.fail(TransportFailure.DISCONNECTED, f"the server closed the connection ({reason})")


def _to_monotonic(exchange: Exchange) -> None:
    """Kernel stamps are of CLOCK_REALTIME. One that would lie in the future or before the send (the clock was set) is no stamp."""
    offset = time_ns() - perf_counter_ns()
    stamps = exchange.kernel_ns
    for index, user_ns in enumerate(exchange.user_ns):
        if stamps[index] != NO_STAMP:
            monotonic = stamps[index] - offset
            stamps[index] = monotonic if exchange.start_ns <= monotonic <= user_ns else NO_STAMP
