"""Server-sent events (WHATWG HTML, section 9.2) out of a whole body, each with the offset at which it was complete."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Events:
    """`data` of each finished event, and the offset in the body of the byte that finished it. `torn`: bytes came that finished none."""

    data: list[bytes]
    completed_at: list[int]
    torn: bool


def read_events(body: bytes) -> Events:
    """The events of an event stream. Lines may end in LF, CR or CRLF; comments and other fields are passed over; no data is no event.

    An event is finished by the first byte of its blank line's end, so that a CRLF torn in two delays nothing.
    """
    data: list[bytes] = []
    completed_at: list[int] = []
    pending: list[bytes] = []
    position = len(_BOM) if body.startswith(_BOM) else 0
    for end in _LINE_END.finditer(body, position):
        text, position = body[position : end.start()], end.end()
        if text:
            field, _, value = text.partition(b":")
            if field == b"data":
                pending.append(value.removeprefix(b" "))
        elif pending:
            data.append(b"\n".join(pending))
            completed_at.append(end.start())
            pending.clear()
    return Events(data, completed_at, bool(pending) or position < len(body))
