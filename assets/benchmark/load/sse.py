"""An incremental decoder of server-sent events (WHATWG HTML, section 9.2), for the `data` of `text/event-stream`."""

from __future__ import annotations


class SseDecoder:
    """Bytes in, the `data` of finished events out. Lines may end in LF, CR or CRLF; comments and other fields are passed over."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[bytes] = []
        self._after_cr = False
        self._first = True

    def feed(self, fragment: bytes) -> list[bytes]:
        """The data of each event that `fragment` finishes, in order. An event without data is none."""
        if self._after_cr and fragment.startswith(b"\n"):
            fragment = fragment[1:]
            self._after_cr = False
        if not fragment:
            return []
        self._after_cr = fragment.endswith(b"\r")
        *lines, rest = fragment.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        events: list[bytes] = []
        for line in lines:
            self._end_line(bytes(self._line) + line, events)
            self._line.clear()
        self._line += rest
        return events

    @property
    def pending(self) -> bool:
        """Bytes have come that no blank line has finished: at the end of a stream, a torn event."""
        return bool(self._line or self._data)

    def _end_line(self, line: bytes, events: list[bytes]) -> None:
        if self._first:
            self._first = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            if self._data:
                events.append(b"\n".join(self._data))
                self._data.clear()
            return
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
