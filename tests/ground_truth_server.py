"""A streaming server whose truth is known: it sends what a request's `scenario` says, and remembers when.

Runs in a process of its own. Stamps are `time.perf_counter_ns`, which on Linux is CLOCK_MONOTONIC and so the same clock in the client's
process. `GET /truth` returns, by the request's `user` field, when the request came and when each chunk was handed to the socket.

Scenario fields (all optional): `ttft_ms`, `gap_ms`, `chunks`, `tokens_per_chunk`, `role_chunk` (an empty first chunk at once),
`usage_delay_ms` (pause before the trailing usage chunk), `framing` (`chunked`, `close`), `bytes_per_write` (tear the stream), `fault`:
`http_404`, `http_429`, `http_500`, `not_http`, `close_mid_stream`, `no_end`, `bad_json`, `error_event`, `empty`, `never`,
`vanish` (work for `ttft_ms`, then close without a word); `close_after`
(close the connection after the response, without saying so), `reject_fields` (answer 400 when one of them is in the body).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nKeep-Alive: timeout=5, max=100\r\n"
MODELS = b'{"object":"list","data":[{"id":"truth","object":"model"}]}'


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
                if head.startswith(b"GET /truth"):
                    _answer(
                        writer,
                        200,
                        json.dumps({"requests": self.truth, "connections": self.connections, "vanished": self.vanished}).encode(),
                    )
                elif head.startswith(b"GET /v1/models"):
                    _answer(writer, 200, MODELS)
                else:
                    await self._complete(json.loads(body), received_ns, writer)
                await writer.drain()
        writer.close()

    async def _complete(self, body: dict[str, Any], received_ns: int, writer: asyncio.StreamWriter) -> None:
        scenario = body.get("scenario", {})
        fault = scenario.get("fault")
        if body["model"] != "truth" or fault == "http_404":
            _answer(writer, 404, b'{"error":{"message":"no such model"}}')
        elif fault == "http_429":
            _answer(writer, 429, b'{"error":{"message":"too many requests"}}')
        elif fault == "http_500":
            _answer(writer, 500, b'{"error":{"message":"broken"}}')
        elif any(name in body for name in scenario.get("reject_fields", ())):
            _answer(writer, 400, b'{"error":{"message":"unknown field"}}')
        elif fault == "not_http":
            writer.write(b"220 smtp.example ESMTP\r\n\r\n")
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
        truth = self.truth[str(body.get("user"))] = {"received_ns": received_ns, "sent_ns": [], "usage_sent_ns": None}

        async def send(event: bytes) -> int:
            data = b"data: " + event + b"\n\n"
            await _write(writer, b"%x\r\n%s\r\n" % (len(data), data) if chunked else data, step)
            return time.perf_counter_ns()

        await _write(writer, HEAD + (b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"Connection: close\r\n\r\n"), step)
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
            usage = {"prompt_tokens": _prompt_tokens(body["prompt"]), "completion_tokens": scenario.get("reported_tokens", chunks * tokens)}
            await send(json.dumps({"choices": [], "usage": usage}).encode())
            await send(b"[DONE]")
        if chunked:
            await _write(writer, b"0\r\n\r\n", step)
        else:
            writer.close()


def _chunk(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}).encode()


def _prompt_tokens(prompt: str | list[int]) -> int:
    """Two tokens a word and three around them, so that a client has something to find out."""
    return len(prompt) if isinstance(prompt, list) else 3 + 2 * len(prompt.split())


async def _write(writer: asyncio.StreamWriter, data: bytes, step: int | None) -> None:
    for start in range(0, len(data), step or len(data)):
        writer.write(data[start : start + (step or len(data))])
        await writer.drain()
        if step:
            await asyncio.sleep(0)


def _answer(writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
    writer.write(b"HTTP/1.1 %d Status\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)


async def _main(port: int) -> None:
    server = await asyncio.start_server(GroundTruth().serve, "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


@contextmanager
def running() -> Iterator[str]:
    """The server in a process of its own; gives its URL."""
    process = subprocess.Popen([sys.executable, str(Path(__file__).resolve())], stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout is None:
            raise RuntimeError("no pipe from the server")
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(_main(parser.parse_args().port))
