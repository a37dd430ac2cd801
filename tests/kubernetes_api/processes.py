"""One instance of a container as a local process.

The process leads a session of its own and dies with the server (assets/benchmark/guard.py). When it ends, so does everything that it has
started, as in a container whose first process ends: its descendants are found by a variable of their environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import psutil

from assets.benchmark.guard import guarded
from tests.kubernetes_api.logs import ContainerLog

CLUSTER_VARIABLE: Final = "FAKE_CLUSTER_ID"
CONTAINER_VARIABLE: Final = "FAKE_CONTAINER_ID"
SIGNAL_EXIT_CODE: Final = 128  # a container killed by signal n ends with 128 + n
_READ_BYTES: Final = 65_536
KILL_POLL_S: Final = 0.005


def marked(variable: str, value: str) -> list[psutil.Process]:
    """Processes that were started with this variable in their environment; zombies are none."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(variable) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def kill_marked(variable: str, value: str) -> None:
    """SIGKILL to all of them, until none is left: one may fork while it is looked for."""
    while processes := marked(variable, value):
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(KILL_POLL_S)


class ContainerProcess:
    """A started process; `exited` gives its exit code once it and its descendants are gone and its log is complete."""

    def __init__(self, process: asyncio.subprocess.Process, output: asyncio.StreamReader, container_id: str, log: ContainerLog) -> None:
        self._process = process
        self._output = output
        self._container_id = container_id
        self._log = log
        self.exited: asyncio.Task[int] = asyncio.create_task(self._reap())

    @classmethod
    async def start(
        cls, command: Sequence[str], environment: Mapping[str, str], folder: Path, container_id: str, log: ContainerLog
    ) -> Self:
        """Run the command with this environment and no other."""
        # A pipe of our own: asyncio's wait() would wait for the end of its pipes too, which descendants hold open
        # (https://github.com/python/cpython/issues/119710).
        read_end, write_end = os.pipe()
        output = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(output), os.fdopen(read_end, "rb"))
        try:
            process = await asyncio.create_subprocess_exec(
                *guarded(command),
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=subprocess.STDOUT,
                env={**environment, CONTAINER_VARIABLE: container_id},
                cwd=folder,
                start_new_session=True,
            )
        finally:
            os.close(write_end)
        return cls(process, output, container_id, log)

    @property
    def pid(self) -> int:
        """Of the container's first process."""
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """To the first process alone, as a container runtime does."""
        # Not Popen.send_signal: it polls, and so takes the exit status from asyncio's child watcher, which then reports 255.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def kill(self) -> None:
        """SIGKILL to the first process; the rest follows."""
        self.signal(signal.SIGKILL)

    async def _reap(self) -> int:
        reader = asyncio.create_task(self._read())
        code = await self._process.wait()
        kill_marked(CONTAINER_VARIABLE, self._container_id)
        await reader
        self._log.finish()
        return code if code >= 0 else SIGNAL_EXIT_CODE - code

    async def _read(self) -> None:
        while data := await self._output.read(_READ_BYTES):
            self._log.write(data)
