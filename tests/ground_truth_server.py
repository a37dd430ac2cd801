"""A streaming server whose truth is known: it sends what a request's `scenario` says, and remembers when.

Runs in a process of its own. Stamps are `time.perf_counter_ns`, which on Linux is CLOCK_MONOTONIC and so the same clock in the client's
process. `GET /truth` returns, by the index in the X-Request-Id, when the request came and when each chunk was handed to the socket.

`scenarios` may hold one for a request by its index. Scenario fields (all optional): `ttft_ms`, `gap_ms`, `chunks`,
`tokens_per_chunk`, `role_chunk` (an empty first chunk at once), `usage_delay_ms` (pause before the trailing usage chunk), `framing`
(`chunked`, `close`), `bytes_per_write` (tear the stream), `close_after` (close the connection after the response, without saying so),
`reject_fields` (answer 400 when one of them is in the body), `reported_tokens`, and `fault`:

- a plain answer: `http_404`, `http_429`, `http_500`, `redirect`, `wrong_type` (JSON instead of a stream), `not_http`
- no answer: `never`, `vanish` (work for `ttft_ms`, then close without a word)
- a stream that is wrong: `close_mid_stream`, `no_end`, `bad_json`, `error_event`, `empty`, `gzip` (says that it is encoded so)
- a stream that does not end: `gigantic_chunk` (one of 2^40 bytes), `endless` (tokens for ever), `drip` (a byte a second)
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nKeep-Alive: timeout=5, max=100\r\n"
MODELS = b'{"object":"list","data":[{"id":"truth","object":"model"}]}'


def _answer(status: int, body: bytes, headers: bytes = b"Content-Type: application/json\r\n") -> bytes:
    return b"HTTP/1.1 %d Status\r\n%sContent-Length: %d\r\n\r\n" % (status, headers, len(body)) + body


ANSWERS = {
    "http_404": _answer(404, b'{"error":{"message":"no such model"}}'),
    "http_429": _answer(429, b'{"error":{"message":"too many requests"}}'),
    "http_500": _answer(500, b'{"error":{"message":"broken"}}'),
    "redirect": _answer(307, b"", b"Location: http://elsewhere.example/v1\r\n"),
    "wrong_type": _answer(200, b'{"choices":[{"text":"all at once"}]}'),
    "not_http": b"220 smtp.example ESMTP\r\n\r\n",
}
TOKEN = b'data: {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": null}]}\n\n'
# The pause after each piece in seconds, and the piece.
ENDLESS = {
    "gigantic_chunk": (0.0, b"x" * 65_536),
    "endless": (0.0, b"%x\r\n%s\r\n" % (len(TOKEN), TOKEN) * 64),
    "drip": (1.0, b"1\r\n:\r\n"),
}


class GroundTruth:
    """The server's state: what it has sent, by request."""

    def __init__(self) -> None:
        self.truth: dict[str, dict[str, Any]] = {}
        self.connections = 0
        self.vanished = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                received_ns = time.perf_counter_ns()
                length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
                body = await reader.readexactly(length)
                name = next((line[13:].strip() for line in head.split(b"\r\n") if line.lower().startswith(b"x-request-id:")), b"")
                request_id = name.decode().removeprefix("dyno-").partition(".")[0]
                if head.startswith(b"GET /truth"):
                    told = {"requests": self.truth, "connections": self.connections, "vanished": self.vanished}
                    writer.write(_answer(200, json.dumps(told).encode()))
                elif head.startswith(b"GET /v1/models"):
                    writer.write(_answer(200, MODELS))
                elif head.startswith(b"GET "):
                    writer.write(_answer(404, b"no such page"))
                else:
                    await self._complete({**json.loads(body), "request_id": request_id}, received_ns, writer)
                await writer.drain()
        writer.close()

    async def _complete(self, body: dict[str, Any], received_ns: int, writer: asyncio.StreamWriter) -> None:
        scenario = body.get("scenarios", {}).get(body["request_id"], body.get("scenario", {}))
        fault = scenario.get("fault")
        if body["model"] != "truth":
            fault = "http_404"
        if fault in ANSWERS:
            writer.write(ANSWERS[fault])
        elif fault in ENDLESS:
            pause_s, data = ENDLESS[fault]
            writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + (b"10000000000\r\n" if fault == "gigantic_chunk" else b""))
            await _pour(writer, data, pause_s)
        elif any(name in body for name in scenario.get("reject_fields", ())):
            writer.write(_answer(400, b'{"error":{"message":"unknown field"}}'))
        elif fault == "never":
            await asyncio.sleep(3600)
        elif fault == "vanish":
            self.vanished += 1
            await asyncio.sleep(scenario["ttft_ms"] / 1e3)
            writer.close()
        else:
            await self._stream(body, scenario, received_ns, writer)
        if scenario.get("close_after"):
            writer.close()

    async def _stream(self, body: dict[str, Any], scenario: dict[str, Any], received_ns: int, writer: asyncio.StreamWriter) -> None:
        fault, chunked = scenario.get("fault"), scenario.get("framing", "chunked") == "chunked"
        step = scenario.get("bytes_per_write")
        truth = self.truth[str(body["request_id"])] = {"received_ns": received_ns, "sent_ns": [], "usage_sent_ns": None}

        async def send(event: bytes) -> int:
            data = b"data: " + event + b"\n\n"
            await _write(writer, b"%x\r\n%s\r\n" % (len(data), data) if chunked else data, step)
            return time.perf_counter_ns()

        head = HEAD + (b"Content-Encoding: gzip\r\n" if fault == "gzip" else b"")
        await _write(writer, head + (b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"Connection: close\r\n\r\n"), step)
        if scenario.get("role_chunk"):
            await send(_chunk({"role": "assistant", "content": ""}))
        await asyncio.sleep(scenario.get("ttft_ms", 0) / 1e3)
        chunks, tokens = scenario.get("chunks", 4), scenario.get("tokens_per_chunk", 1)
        for index in range(0 if fault == "empty" else chunks):
            if index:
                await asyncio.sleep(scenario.get("gap_ms", 0) / 1e3)
            truth["sent_ns"].append(time.perf_counter_ns())
            await send(_chunk({"content": " word" * tokens}))
            if index == 1 and fault in {"close_mid_stream", "bad_json", "error_event"}:
                if fault == "close_mid_stream":
                    writer.close()
                    return
                await send(b'{"choices": [' if fault == "bad_json" else b'{"error":{"message":"out of memory"}}')
        if fault != "no_end":
            await send(_chunk({}, "length"))
            await asyncio.sleep(scenario.get("usage_delay_ms", 0) / 1e3)
            truth["usage_sent_ns"] = time.perf_counter_ns()
            usage = {"prompt_tokens": _prompt_tokens(body), "completion_tokens": scenario.get("reported_tokens", chunks * tokens)}
            await send(json.dumps({"choices": [], "usage": usage}).encode())
            await send(b"[DONE]")
        if chunked:
            await _write(writer, b"0\r\n\r\n", step)
        else:
            writer.close()


async def _pour(writer: asyncio.StreamWriter, data: bytes, pause_s: float) -> None:
    """The same bytes again and again, until the client goes."""
    while not writer.is_closing():
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(pause_s)


def _chunk(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}).encode()


def _prompt_tokens(body: dict[str, Any]) -> int:
    """Two tokens a word and three around them, so that a client has something to find out."""
    prompt: str | list[int] = body["prompt"] if "prompt" in body else " ".join(message["content"] for message in body["messages"])
    return len(prompt) if isinstance(prompt, list) else 3 + 2 * len(prompt.split())


async def _write(writer: asyncio.StreamWriter, data: bytes, step: int | None) -> None:
    for start in range(0, len(data), step or len(data)):
        writer.write(data[start : start + (step or len(data))])
        await writer.drain()
        if step:
            await asyncio.sleep(0)


async def _main(port: int, unix_path: str | None, certificate: str | None) -> None:
    tls = None
    if certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
    if unix_path:
        server = await asyncio.start_unix_server(GroundTruth().serve, unix_path)
    else:
        server = await asyncio.start_server(GroundTruth().serve, "127.0.0.1", port, ssl=tls)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


@contextmanager
def running(*, unix_path: Path | None = None, certificate: Path | None = None) -> Iterator[str]:
    """The server in a process of its own; gives its URL. It listens on TCP, with `certificate` (a PEM file) over TLS, or on `unix_path`."""
    options = [f"--unix={unix_path}"] if unix_path else [f"--certificate={certificate}"] if certificate else []
    process = subprocess.Popen([sys.executable, str(Path(__file__).resolve()), *options], stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout is None:
            raise RuntimeError("no pipe from the server")
        port = process.stdout.readline().strip()
        yield f"unix:{unix_path}" if unix_path else f"{'https' if certificate else 'http'}://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--unix")
    parser.add_argument("--certificate")
    options = parser.parse_args()
    asyncio.run(_main(options.port, options.unix, options.certificate))
