"""When the kernel received bytes: SO_TIMESTAMPING (Linux, Documentation/networking/timestamping.rst). A busy process cannot falsify it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

_SO_TIMESTAMPING = 37
_SOF_RX_SOFTWARE, _SOF_SOFTWARE = 1 << 3, 1 << 4
_TIMESPEC = struct.Struct("qq")
# What `recvmsg` needs for the message: three timespecs, the first of which is the software stamp.
ANCILLARY_BYTES = socket.CMSG_SPACE(3 * _TIMESPEC.size)


def ask_for_stamps(sock: socket.socket) -> bool:
    """Have the kernel stamp what arrives on a TCP socket; False where it cannot."""
    if sock.family == socket.AF_UNIX:
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _SOF_RX_SOFTWARE | _SOF_SOFTWARE)
    except OSError:
        return False
    return True


def kernel_stamp(ancillary: Sequence[tuple[int, int, bytes]]) -> int | None:
    """The stamp in what `recvmsg` gave beside the bytes: nanoseconds of CLOCK_REALTIME, of the last segment read; None if there is none."""
    if not ancillary:
        return None
    seconds, nanoseconds = _TIMESPEC.unpack_from(ancillary[0][2])
    return int(seconds * 1_000_000_000 + nanoseconds)
