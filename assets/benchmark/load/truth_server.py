"""A deterministic streaming server whose true times are known: what a client is calibrated against.

`python -m assets.benchmark.load.truth_server` runs it in a process of its own. It answers `/v1/completions`, `/v1/chat/completions` and
`/generate_stream`: the first token comes `--ttft-ms` after the request (uniformly spread over +- `--ttft-spread-ms`), the following ones
`--itl-ms` apart (+- `--itl-spread-ms`), as many as `max_tokens` asks for. Times follow from the seed and the request's order. It remembers
when each request reached the kernel and the instant before each token was handed to it, and tells at `GET /truth`, as JSON:
`{"requests": [{"id": "X-Request-Id", "received_ns": ..., "token_ns": [...]}]}` in nanoseconds of CLOCK_MONOTONIC, which is the
client's clock too; `DELETE /truth` forgets them. With `--certificate` it speaks TLS. It prints its port.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import itertools
import json
import random
import re
import select
import signal
import socket
import ssl
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter_ns, time_ns

from assets.benchmark.load.file_limit import raise_file_limit
from assets.benchmark.load.kernel_stamps import ANCILLARY_BYTES, ask_for_stamps, kernel_stamp
from assets.benchmark.load.tls_layer import TlsLayer

BACKLOG = 4096
MODEL = "truth"
_RECEIVE_BYTES = 262_144
_SENDS_BETWEEN_POLLS = 32
_CONTENT_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: *(\d+)")
_MAX_TOKENS = re.compile(rb'"max_(?:new_|completion_)?tokens": *(\d+)')
_TOKEN_IDS = re.compile(rb'"prompt": *\[([0-9, ]+)\]')
_REQUEST_ID = re.compile(rb"\r\n[Xx]-[Rr]equest-[Ii][Dd]: *([^\r]+)")
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Timing:
    """True times, in milliseconds; spreads are half-widths of uniform distributions."""

    ttft_ms: float = 200.0
    ttft_spread_ms: float = 100.0
    itl_ms: float = 20.0
    itl_spread_ms: float = 5.0
    seed: int = 0


@dataclass(slots=True)
class Truth:
    """What really happened to one request."""

    id: str
    received_ns: int
    token_ns: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Stream:
    client: _Client
    truth: Truth
    events: _Events
    prompt_tokens: int
    delays_ns: list[int]
    due_ns: int


class _Client:
    """A connection: bytes of requests not yet complete, and bytes that the socket would not take yet."""

    def __init__(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        self.socket = sock
        ask_for_stamps(sock)
        self.tls = TlsLayer(tls, server_side=True) if tls is not None else None
        self.open = tls is None
        self.buffer = b""
        self.unsent = b""
        self.received_ns = 0


@dataclass(frozen=True, slots=True)
class _Events:
    """One API's chunks: of a token, of the last one, and the data of the event that ends the stream, with IN and OUT for token counts."""

    token: bytes
    last: bytes
    end: str


def _openai(token: dict[str, object], last: dict[str, object], kind: str) -> _Events:
    def event(choice: dict[str, object]) -> bytes:
        body = {"id": "truth-0", "object": kind, "created": 1, "model": MODEL, "choices": [{"index": 0, "logprobs": None, **choice}]}
        return _chunk(b"data: " + json.dumps(body).encode() + b"\n\n")

    return _Events(
        event({**token, "finish_reason": None}),
        event({**last, "finish_reason": "length"}),
        '{"id":"truth-0","object":"KIND","created":1,"model":"truth","choices":[],"usage":'
        '{"prompt_tokens":IN,"completion_tokens":OUT,"total_tokens":SUM}}\n\ndata: [DONE]'.replace("KIND", kind),
    )


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _tgi(generated_text: str, details: str) -> str:
    token = {"id": 1, "text": " a", "logprob": -1.0, "special": False}
    return f'{{"index":1,"token":{json.dumps(token)},"generated_text":{generated_text},"details":{details}}}'


_COMPLETIONS = _openai({"text": " a"}, {"text": " a"}, "text_completion")
_CHAT = _openai({"delta": {"content": " a"}}, {"delta": {"content": " a"}}, "chat.completion.chunk")
_TGI = _Events(
    _chunk(f"data:{_tgi('null', 'null')}\n\n".encode()),
    b"",
    _tgi('" a"', '{"finish_reason":"length","generated_tokens":OUT,"input_length":IN,"seed":null}'),
)
_APIS = {b"/v1/completions": _COMPLETIONS, b"/v1/chat/completions": _CHAT, b"/generate_stream": _TGI}


class TruthServer:
    """One thread, one epoll; tokens leave in the order of their instants."""

    def __init__(self, listener: socket.socket, timing: Timing, tls: ssl.SSLContext | None) -> None:
        self._listener, self._timing, self._tls = listener, timing, tls
        self._random = random.Random(timing.seed)  # noqa: S311  # latencies, not secrets
        self._epoll = select.epoll()
        self._epoll.register(listener, select.EPOLLIN)
        self._clients: dict[int, _Client] = {}
        self._due: list[tuple[int, int, _Stream]] = []
        self._numbers = itertools.count()
        self._truth: list[Truth] = []
        self._buffer = bytearray(_RECEIVE_BYTES)

    def run(self) -> None:
        """Serve until standard input ends."""
        self._epoll.register(sys.stdin, select.EPOLLIN)
        while True:
            self._send_due()
            if self._due:
                # epoll's own timeout has a grain of a millisecond
                select.select((self._epoll,), (), (), max(0, self._due[0][0] - perf_counter_ns()) / 1e9)
            for fd, events in self._epoll.poll(0 if self._due else None):
                client = self._clients.get(fd)
                if fd == self._listener.fileno():
                    self._accept()
                elif client is None:
                    return  # standard input has ended
                elif events & select.EPOLLOUT:
                    self._flush(client)
                else:
                    self._receive(client)

    def _accept(self) -> None:
        with suppress(OSError):  # none waits, or there are no files left: those that are open must go on
            while True:
                sock, _ = self._listener.accept()
                sock.setblocking(False)
                if sock.family != socket.AF_UNIX:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._clients[sock.fileno()] = _Client(sock, self._tls)
                self._epoll.register(sock, select.EPOLLIN)

    def _receive(self, client: _Client) -> None:
        try:
            size, ancillary, _, _ = client.socket.recvmsg_into((self._buffer,), ANCILLARY_BYTES)
        except BlockingIOError:
            return
        except OSError:
            size, ancillary = 0, []
        if not size:
            self._drop(client)
            return
        now = perf_counter_ns()
        stamp = kernel_stamp(ancillary)
        client.received_ns = now if stamp is None else min(now, stamp - (time_ns() - now))
        try:
            client.buffer += self._decrypted(client, memoryview(self._buffer)[:size])
        except ssl.SSLError:
            self._drop(client)
            return
        while (end := client.buffer.find(b"\r\n\r\n")) >= 0:
            length = _CONTENT_LENGTH.search(client.buffer, 0, end + 2)
            total = end + 4 + (int(length[1]) if length else 0)
            if len(client.buffer) < total:
                return
            request, client.buffer = client.buffer[:total], client.buffer[total:]
            self._answer(client, request)

    def _decrypted(self, client: _Client, data: memoryview) -> bytes | memoryview:
        """What of the request `data` completes. Raises ssl.SSLError."""
        tls = client.tls
        if tls is None:
            return data
        if client.open:
            return tls.decrypt(data)
        tls.incoming.write(data)
        client.open = tls.handshake()
        self._write(client, tls.outgoing.read())
        return tls.decrypt(memoryview(b"")) if client.open else b""

    def _answer(self, client: _Client, request: bytes) -> None:
        method, path, _ = request.split(b" ", 2)
        events = _APIS.get(path)
        if method == b"POST" and events is not None:
            self._begin(client, request, events)
        elif path == b"/truth" and method == b"DELETE":
            self._truth.clear()
            self._reply(client, b"{}")
        elif path == b"/truth":
            requests = [{"id": truth.id, "received_ns": truth.received_ns, "token_ns": truth.token_ns} for truth in self._truth]
            self._reply(client, json.dumps({"requests": requests}).encode())
        elif path == b"/v1/models":
            self._reply(client, json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}).encode())
        elif path == b"/health":
            self._reply(client, b"{}")
        else:
            self._reply(client, b'{"error":{"message":"no such page"}}', b"404 Not Found")

    def _begin(self, client: _Client, request: bytes, events: _Events) -> None:
        timing, uniform = self._timing, self._random.uniform
        asked, name = _MAX_TOKENS.search(request), _REQUEST_ID.search(request)
        tokens = max(1, int(asked[1]) if asked else 16)
        first_ms = timing.ttft_ms + uniform(-1, 1) * timing.ttft_spread_ms
        low, high = timing.itl_ms - timing.itl_spread_ms, timing.itl_ms + timing.itl_spread_ms
        truth = Truth(name[1].decode("latin-1") if name else "", client.received_ns)
        self._truth.append(truth)
        delays_ns = [int(uniform(low, high) * 1e6) for _ in range(tokens - 1)]
        stream = _Stream(client, truth, events, _count_prompt(request), delays_ns, client.received_ns + int(first_ms * 1e6))
        self._send(client, _STREAM_HEAD)
        heapq.heappush(self._due, (stream.due_ns, next(self._numbers), stream))

    def _send_due(self) -> None:
        for _ in range(_SENDS_BETWEEN_POLLS):
            if not self._due or self._due[0][0] > perf_counter_ns():
                return
            _, number, stream = self._due[0]
            sent = len(stream.truth.token_ns)
            last = sent == len(stream.delays_ns)
            data = self._ending(stream) if last else stream.events.token
            stream.truth.token_ns.append(perf_counter_ns())
            self._send(stream.client, data)
            if last or stream.client.socket.fileno() < 0:
                heapq.heappop(self._due)
            else:
                stream.due_ns += stream.delays_ns[sent]
                heapq.heapreplace(self._due, (stream.due_ns, number, stream))

    @staticmethod
    def _ending(stream: _Stream) -> bytes:
        tokens = len(stream.delays_ns) + 1
        end = (
            stream.events.end.replace("OUT", str(tokens))
            .replace("SUM", str(stream.prompt_tokens + tokens))
            .replace("IN", str(stream.prompt_tokens))
        )
        return stream.events.last + _chunk(f"data: {end}\n\n".encode()) + b"0\r\n\r\n"

    def _reply(self, client: _Client, body: bytes, status: bytes = b"200 OK") -> None:
        self._send(client, b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)

    def _send(self, client: _Client, data: bytes) -> None:
        self._write(client, data if client.tls is None else client.tls.encrypt(data))

    def _write(self, client: _Client, data: bytes) -> None:
        if client.socket.fileno() < 0:
            return
        if client.unsent:
            client.unsent += data
            return
        try:
            sent = client.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(client)
            return
        if sent < len(data):
            client.unsent = data[sent:]
            self._epoll.modify(client.socket, select.EPOLLOUT)

    def _flush(self, client: _Client) -> None:
        data, client.unsent = client.unsent, b""
        self._write(client, data)
        if not client.unsent and client.socket.fileno() >= 0:
            self._epoll.modify(client.socket, select.EPOLLIN)

    def _drop(self, client: _Client) -> None:
        self._clients.pop(client.socket.fileno(), None)
        client.socket.close()


def _count_prompt(request: bytes) -> int:
    """A word is a token, and so is an id."""
    ids = _TOKEN_IDS.search(request)
    return ids[1].count(b",") + 1 if ids else request.partition(b"\r\n\r\n")[2].count(b" ") + 1


def _listen(unix_path: str | None) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX if unix_path else socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(unix_path or ("127.0.0.1", 0))
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = Timing()
    for name in ("ttft_ms", "ttft_spread_ms", "itl_ms", "itl_spread_ms"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(defaults, name))
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--unix", help="listen on this path instead of a TCP port of 127.0.0.1")
    parser.add_argument("--certificate", help="speak TLS, with the key and the certificate in this PEM file")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise_file_limit()
    listener = _listen(options.unix)
    print(listener.getsockname()[1] if not options.unix else options.unix, flush=True)
    gc.collect()
    gc.freeze()
    gc.disable()  # nothing here is cyclic, and a collection would delay tokens
    timing = Timing(options.ttft_ms, options.ttft_spread_ms, options.itl_ms, options.itl_spread_ms, options.seed)
    tls = None
    if options.certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options.certificate)
    TruthServer(listener, timing, tls).run()


if __name__ == "__main__":
    main()
