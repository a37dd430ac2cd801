"""Where an HTTP/1.1 response ends and which of its bytes are its body (RFC 9112), over one growing buffer.

Nothing is copied: the client keeps a response as it came, and both the running client (is it complete?) and the decoder after the run
(which bytes are content, and at which offset did they end?) walk the same buffer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

MAX_HEAD_BYTES = 65_536
MAX_CHUNK_LINE_BYTES = 4_096
MAX_LENGTH_DIGITS = 18

_HEAD_END = b"\r\n\r\n"
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: .*)?\Z")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r\n")
_NO_BODY = frozenset({204, 304})

Buffer = bytes | bytearray


class MalformedResponseError(ValueError):
    """The bytes are not an HTTP/1.1 response."""


class Framing(Enum):
    """How the end of a body is told."""

    NO_BODY = auto()
    LENGTH = auto()
    CHUNKED = auto()
    UNTIL_CLOSE = auto()


@dataclass(frozen=True, slots=True)
class Head:
    """The status line and headers of a final response. `body_start` is the offset of the body; `length` is that of Framing.LENGTH."""

    status: int
    headers: dict[str, str]
    keep_alive: bool
    framing: Framing
    length: int
    body_start: int


def read_head(buffer: Buffer) -> Head | None:
    """The head of the response, interim (1xx) ones passed over; None while it is not complete. Raises MalformedResponseError."""
    start = 0
    while True:
        end = buffer.find(_HEAD_END, start)
        if end < 0:
            if len(buffer) - start > MAX_HEAD_BYTES:
                raise MalformedResponseError(f"no end of the headers within {MAX_HEAD_BYTES} bytes")
            if not b"HTTP/1.".startswith(buffer[start : start + 7]):
                raise MalformedResponseError(f"not an HTTP/1.1 status line: {bytes(buffer[start : start + 80])!r}")
            return None
        lines = bytes(buffer[start:end]).split(b"\r\n")
        status_line = _STATUS_LINE.match(lines[0])
        if status_line is None:
            raise MalformedResponseError(f"not an HTTP/1.1 status line: {lines[0][:80]!r}")
        status = int(status_line[2])
        start = end + len(_HEAD_END)
        if 100 <= status < 200:
            continue
        headers = _parse_headers(lines[1:])
        framing, length = _framing(status, headers)
        connection = headers.get("connection", "").lower()
        persistent = "close" not in connection and (status_line[1] == b"1" or "keep-alive" in connection)
        return Head(status, headers, persistent and framing is not Framing.UNTIL_CLOSE, framing, length, start)


class ChunkWalker:
    """Finds the chunks of a chunked body. `spans` are the offsets (start, end) of their data; `complete` once the last one has come."""

    def __init__(self, start: int) -> None:
        self.spans: list[tuple[int, int]] = []
        self.complete = False
        self.position = start
        self._in_trailer = False

    def advance(self, buffer: Buffer) -> None:
        """Take what has come since. Raises MalformedResponseError; bytes after the end of the response are malformed too."""
        position, size = self.position, len(buffer)
        while not self._in_trailer:
            line = _CHUNK_LINE.match(buffer, position)
            if line is None:
                self._check_torn_line(buffer, position)
                break
            length, start = int(line[1], 16), line.end()
            if not length:
                self._in_trailer, position = True, start
                break
            end = start + length
            if end + 2 > size:
                break
            if buffer[end : end + 2] != b"\r\n":
                raise MalformedResponseError("chunk data is not followed by CRLF")
            self.spans.append((start, end))
            position = end + 2
        self.position = position
        if self._in_trailer and not self.complete:
            self._read_trailer(buffer)
        if self.complete and self.position < size:
            raise MalformedResponseError(f"{size - self.position} bytes after the end of the response")

    def partial(self, buffer: Buffer) -> tuple[int, int] | None:
        """What has come of a chunk that is not all there: a stream that broke off still carried it."""
        line = None if self._in_trailer else _CHUNK_LINE.match(buffer, self.position)
        if line is None:
            return None
        end = min(line.end() + int(line[1], 16), len(buffer))
        return (line.end(), end) if end > line.end() else None

    def _check_torn_line(self, buffer: Buffer, position: int) -> None:
        rest = bytes(buffer[position : position + MAX_CHUNK_LINE_BYTES])
        complete = b"\r\n" in rest
        if complete or len(rest) == MAX_CHUNK_LINE_BYTES or not re.match(rb"(?:[0-9A-Fa-f]{1,16}[ \t]*(?:;.*)?\r?)?\Z", rest, re.DOTALL):
            raise MalformedResponseError(f"not a chunk size: {rest[:40]!r}")

    def _read_trailer(self, buffer: Buffer) -> None:
        while (end := buffer.find(b"\r\n", self.position)) >= 0:
            empty = end == self.position
            self.position = end + 2
            if empty:
                self.complete = True
                return
        if len(buffer) - self.position > MAX_HEAD_BYTES:
            raise MalformedResponseError(f"a trailer of more than {MAX_HEAD_BYTES} bytes")


def body_spans(buffer: Buffer, head: Head) -> list[tuple[int, int]]:
    """Offsets (start, end) of the body's pieces, as far as they came. Raises MalformedResponseError."""
    if head.framing is not Framing.CHUNKED:
        end = len(buffer) if head.framing is Framing.UNTIL_CLOSE else min(len(buffer), head.body_start + head.length)
        return [(head.body_start, end)] if end > head.body_start else []
    walker = ChunkWalker(head.body_start)
    walker.advance(buffer)
    partial = walker.partial(buffer)
    return [*walker.spans, partial] if partial else walker.spans


def _framing(status: int, headers: dict[str, str]) -> tuple[Framing, int]:
    if status in _NO_BODY:
        return Framing.NO_BODY, 0
    encodings = headers.get("transfer-encoding", "").lower()
    if encodings.split(",")[-1].strip() == "chunked":
        return Framing.CHUNKED, 0
    length = headers.get("content-length")
    if length is None:
        return Framing.UNTIL_CLOSE, 0
    if not (length.isascii() and length.isdigit()) or len(length) > MAX_LENGTH_DIGITS:
        raise MalformedResponseError(f"Content-Length is not a number: {length[:40]!r}")
    return Framing.LENGTH, int(length)


def _parse_headers(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or name != name.strip():
            raise MalformedResponseError(f"not a header line: {line[:80]!r}")
        key = name.decode("latin-1").lower()
        text = value.strip().decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers
