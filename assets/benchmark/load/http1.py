"""An incremental HTTP/1.1 response parser (RFC 9112): bytes in, body bytes out, whatever way the network splits them."""

from __future__ import annotations

import re
from enum import Enum, auto

MAX_HEAD_BYTES = 65_536
MAX_CHUNK_LINE_BYTES = 4_096
MAX_LENGTH_DIGITS = 18

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: .*)?\Z")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}\Z")
_NO_BODY = frozenset({204, 304})


class MalformedResponseError(ValueError):
    """The bytes are not an HTTP/1.1 response."""


class _State(Enum):
    HEAD = auto()
    CHUNK_SIZE = auto()
    CHUNK_DATA = auto()
    CHUNK_END = auto()
    TRAILER = auto()
    FIXED_LENGTH = auto()
    UNTIL_CLOSE = auto()
    DONE = auto()


class ResponseParser:
    """Parses one response. `feed` what arrives; `complete` says when the response has ended.

    `chunked` is known once `head_complete` is. `keep_alive` says whether the server means to keep the connection.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.keep_alive = True
        self.chunked = False
        self._state = _State.HEAD
        self._buffer = bytearray()
        self._remaining = 0
        self._trailer_bytes = 0

    @property
    def head_complete(self) -> bool:
        """The status line and the headers have arrived."""
        return self._state is not _State.HEAD

    @property
    def complete(self) -> bool:
        """The whole response has arrived."""
        return self._state is _State.DONE

    def feed(self, data: bytes) -> bytes:
        """The body bytes that `data` brings. Raises MalformedResponseError; bytes after the end of the response are malformed too."""
        self._buffer += data
        body = bytearray()
        while self._step(body):
            pass
        if self._state is _State.UNTIL_CLOSE:
            body += self._buffer
            self._buffer.clear()
        if self._state is _State.DONE and self._buffer:
            raise MalformedResponseError(f"{len(self._buffer)} bytes after the end of the response")
        return bytes(body)

    def end_of_stream(self) -> bool:
        """The server has closed the connection. True when that ends the response properly (no framing, or already complete)."""
        if self._state is _State.UNTIL_CLOSE:
            self._state = _State.DONE
        return self._state is _State.DONE

    def _step(self, body: bytearray) -> bool:
        """Consume one element of the buffer; False when more bytes are needed."""
        match self._state:
            case _State.HEAD:
                return self._read_head()
            case _State.CHUNK_SIZE:
                return self._read_chunk_size()
            case _State.CHUNK_DATA | _State.FIXED_LENGTH:
                return self._read_counted(body)
            case _State.CHUNK_END:
                return self._read_chunk_end()
            case _State.TRAILER:
                return self._read_trailer()
            case _State.UNTIL_CLOSE | _State.DONE:
                return False

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise MalformedResponseError(f"no end of the headers within {MAX_HEAD_BYTES} bytes")
            return False
        lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        status_line = _STATUS_LINE.match(lines[0])
        if status_line is None:
            raise MalformedResponseError(f"not an HTTP/1.1 status line: {lines[0][:80]!r}")
        self.status = int(status_line[2])
        self.headers = _parse_headers(lines[1:])
        if 100 <= self.status < 200:  # an interim response: the real one follows
            return True
        connection = self.headers.get("connection", "").lower()
        self.keep_alive = "close" not in connection and (status_line[1] == b"1" or "keep-alive" in connection)
        self._state = self._body_state()
        return True

    def _body_state(self) -> _State:
        if self.status in _NO_BODY:
            return _State.DONE
        encodings = self.headers.get("transfer-encoding", "").lower()
        if encodings.split(",")[-1].strip() == "chunked":
            self.chunked = True
            return _State.CHUNK_SIZE
        length = self.headers.get("content-length")
        if length is None:
            self.keep_alive = False
            return _State.UNTIL_CLOSE
        if not (length.isascii() and length.isdigit()) or len(length) > MAX_LENGTH_DIGITS:
            raise MalformedResponseError(f"Content-Length is not a number: {length[:40]!r}")
        self._remaining = int(length)
        return _State.FIXED_LENGTH if self._remaining else _State.DONE

    def _read_line(self, limit: int) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > limit:
                raise MalformedResponseError(f"a chunk line of more than {limit} bytes")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _read_chunk_size(self) -> bool:
        line = self._read_line(MAX_CHUNK_LINE_BYTES)
        if line is None:
            return False
        size = line.split(b";", 1)[0].strip(b" \t")
        if _CHUNK_SIZE.match(size) is None:
            raise MalformedResponseError(f"not a chunk size: {line[:40]!r}")
        self._remaining = int(size, 16)
        self._state = _State.CHUNK_DATA if self._remaining else _State.TRAILER
        return True

    def _read_counted(self, body: bytearray) -> bool:
        if not self._buffer:
            return False
        taken = self._buffer[: self._remaining]
        body += taken
        del self._buffer[: len(taken)]
        self._remaining -= len(taken)
        if self._remaining == 0:
            self._state = _State.CHUNK_END if self._state is _State.CHUNK_DATA else _State.DONE
        return True

    def _read_chunk_end(self) -> bool:
        if len(self._buffer) < 2:
            return False
        if self._buffer[:2] != b"\r\n":
            raise MalformedResponseError("chunk data is not followed by CRLF")
        del self._buffer[:2]
        self._state = _State.CHUNK_SIZE
        return True

    def _read_trailer(self) -> bool:
        line = self._read_line(MAX_HEAD_BYTES)
        if line is None:
            return False
        self._trailer_bytes += len(line)
        if self._trailer_bytes > MAX_HEAD_BYTES:
            raise MalformedResponseError(f"trailers of more than {MAX_HEAD_BYTES} bytes")
        if not line:
            self._state = _State.DONE
        return True


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
