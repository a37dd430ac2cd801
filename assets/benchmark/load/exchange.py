"""One request and what came back, as raw as it came; and its form in the spool through which a load process hands it on."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum

# Stamps are nanoseconds of CLOCK_MONOTONIC, which all processes of a machine share.
NO_STAMP = -1


class TransportFailure(IntEnum):
    """Why no complete response came. What a complete response says is not judged here."""

    NONE = 0
    CONNECT = 1
    TIMEOUT = 2
    DISCONNECTED = 3
    MALFORMED_HTTP = 4
    RESPONSE_TOO_LARGE = 5

    @property
    def kind(self) -> str | None:
        """The failure's name in results, e.g. `malformed_http`; None for NONE."""
        return self.name.lower() if self else None


def _stamps() -> array[int]:
    return array("q")


@dataclass(slots=True)
class Exchange:
    """`turn` of `chain` (of a conversation; 0 where requests stand alone).

    `due_ns` is when it should have gone out: by the schedule, after the think time, or when its predecessor on the stream had ended;
    `start_ns` is the instant before the send. `raw` is the whole response. Arrival i brought the bytes up to `arrival_ends[i]`, seen by
    us at `user_ns[i]` and by the kernel at `kernel_ns[i]` (NO_STAMP where it did not say). `connect_ns` is the time that connecting took,
    NO_STAMP on a connection that was open already.
    """

    chain: int
    turn: int = 0
    due_ns: int = 0
    start_ns: int = 0
    end_ns: int = 0
    connect_ns: int = NO_STAMP
    status: int = 0
    failure: TransportFailure = TransportFailure.NONE
    detail: str = ""
    raw: bytearray = field(default_factory=bytearray)
    arrival_ends: array[int] = field(default_factory=_stamps)
    user_ns: array[int] = field(default_factory=_stamps)
    kernel_ns: array[int] = field(default_factory=_stamps)

    @property
    def has_kernel_stamps(self) -> bool:
        """The kernel stamped every arrival."""
        return NO_STAMP not in self.kernel_ns

    def wire_ns(self) -> array[int]:
        """When each arrival came, as close to the wire as is known."""
        return self.kernel_ns if self.has_kernel_stamps else self.user_ns

    def to_frame(self) -> bytes:
        """Self-delimiting bytes for the spool."""
        detail = self.detail.encode()
        sizes = (len(self.arrival_ends), len(self.raw), len(detail))
        stamp_bytes = _STAMP_BYTES * 3 * sizes[0]
        fixed = _FIXED.pack(
            _FIXED.size + stamp_bytes + sizes[1] + sizes[2],
            self.chain, self.turn, self.status, self.failure,
            self.due_ns, self.start_ns, self.end_ns, self.connect_ns, *sizes,
        )  # fmt: skip
        return b"".join((fixed, self.arrival_ends.tobytes(), self.user_ns.tobytes(), self.kernel_ns.tobytes(), self.raw, detail))

    @classmethod
    def from_frame(cls, frame: bytes) -> Exchange:
        """The inverse of `to_frame`."""
        _, chain, turn, status, failure, due, start, end, connect, arrivals, raw_bytes, detail_bytes = _FIXED.unpack_from(frame)
        position = _FIXED.size
        stamps: list[array[int]] = []
        for _ in range(3):
            stamps.append(array("q", frame[position : position + _STAMP_BYTES * arrivals]))
            position += _STAMP_BYTES * arrivals
        raw = bytearray(frame[position : position + raw_bytes])
        detail = frame[position + raw_bytes : position + raw_bytes + detail_bytes].decode()
        return cls(chain, turn, due, start, end, connect, status, TransportFailure(failure), detail, raw, *stamps)


_STAMP_BYTES = 8
# frame bytes; chain, turn, status, failure; due, start, end, connect; arrivals, raw bytes, detail bytes
_FIXED = struct.Struct("<QIHHHxxqqqqQQI")


class SpoolReader:
    """Exchanges from a growing spool, as `read(offset, size)` gives its bytes."""

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        self._read = read
        self._offset = 0

    def new_exchanges(self) -> Iterator[Exchange]:
        """Those that have been completed since the last call, oldest first."""
        while len(size := self._read(self._offset, 8)) == 8:
            length = int.from_bytes(size, "little")
            frame = self._read(self._offset, length)
            if len(frame) < length:
                return
            self._offset += length
            yield Exchange.from_frame(frame)
