"""Logs of containers: stamped lines in memory and in a file of the CRI's format, for readers that may follow.

Selection as in pkg/kubelet/kuberuntime/logs/logs.go; a line gets its stamp when its end has arrived.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from tests.kubernetes_api.objects import log_time


@dataclass(frozen=True)
class LogOptions:
    """Query parameters of the log subresource."""

    follow: bool = False
    timestamps: bool = False
    since_ns: int | None = None
    tail_lines: int | None = None
    limit_bytes: int | None = None


class ContainerLog:
    """Output of one container instance, stdout and stderr in the order of arrival."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._lines: list[tuple[int, bytes]] = []
        self._partial = b""
        self._last_ns = 0
        self._finished = False
        self._more = asyncio.Event()

    def write(self, data: bytes) -> None:
        """Take bytes as they come."""
        *whole, self._partial = (self._partial + data).split(b"\n")
        for line in whole:
            self._append(line + b"\n")
        self._wake()

    def finish(self) -> None:
        """The container has ended: followers are let go."""
        if self._partial:
            self._append(self._partial)
            self._partial = b""
        self._finished = True
        self._file.close()
        self._wake()

    def tail(self, lines: int, limit_bytes: int) -> str:
        """The last words, for a termination message."""
        text = b"".join(line for _, line in self._lines[-lines:])
        return text[-limit_bytes:].decode("utf-8", "replace")

    async def read(self, options: LogOptions) -> AsyncIterator[bytes]:
        """The lines asked for; with `follow` until the container has ended."""
        selected = self._lines if options.since_ns is None else [line for line in self._lines if line[0] >= options.since_ns]
        position = len(self._lines)
        if options.tail_lines is not None:
            selected = selected[len(selected) - min(options.tail_lines, len(selected)) :]
        left = options.limit_bytes
        chunk = list(selected)
        while True:
            data = b"".join(self._shown(line, options) for line in chunk)
            if left is not None:
                data = data[:left]
                left -= len(data)
            if data:
                yield data
            if left == 0 or not options.follow or (self._finished and position == len(self._lines)):
                return
            if position == len(self._lines):
                await self._more.wait()
            chunk, position = self._lines[position:], len(self._lines)

    @staticmethod
    def _shown(line: tuple[int, bytes], options: LogOptions) -> bytes:
        return (f"{log_time(line[0])} ".encode() if options.timestamps else b"") + line[1]

    def _append(self, line: bytes) -> None:
        self._last_ns = max(self._last_ns + 1, time.time_ns())
        self._lines.append((self._last_ns, line))
        self._file.write(f"{log_time(self._last_ns)} stdout F ".encode() + line.rstrip(b"\n") + b"\n")
        self._file.flush()

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()
