"""A load process: `python -m assets.benchmark.load.process PLAN_FD SPOOL_FD`, started by `fleet`.

Standard input: a line of JSON (the endpoint, and which share of the chains this is), then commands, a line each: `start NANOSECONDS`
(CLOCK_MONOTONIC), `finish`, `abort`. Its end means abort: the process never outlives its parent. Standard output: a line of JSON when the
connections are open, and one with the loop's report at the end. Finished exchanges go to the spool.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict

from assets.benchmark.load.endpoint import Endpoint
from assets.benchmark.load.file_limit import raise_file_limit
from assets.benchmark.load.load_loop import LoadLoop
from assets.benchmark.load.plan import LoadPlan

_COMMAND_BYTES = 4096
_STDIN = 0


class _Commands:
    """Reads standard input for a loop."""

    def __init__(self) -> None:
        self._buffer = b""
        self._loop: LoadLoop | None = None
        self.start_ns: int | None = None
        self.aborted = False

    def first_line(self) -> bytes:
        """The setup. Waits for it."""
        while b"\n" not in self._buffer:
            data = os.read(_STDIN, _COMMAND_BYTES)
            if not data:
                raise SystemExit("no setup came")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def drive(self, loop: LoadLoop) -> None:
        """From now on commands are for `loop`."""
        self._loop = loop
        loop.add_reader(_STDIN, lambda _: self.read())

    def wait_for_start(self) -> int:
        """The instant to start at; -1 when it never comes."""
        while self.start_ns is None and not self.aborted:
            self.read()
        return -1 if self.start_ns is None else self.start_ns

    def read(self) -> None:
        """Take what there is, at least one byte or the end."""
        data = os.read(_STDIN, _COMMAND_BYTES)
        self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines if data else [b"abort"]:
            self._obey(line.split())

    def _obey(self, words: list[bytes]) -> None:
        match words:
            case [b"start", instant]:
                self.start_ns = int(instant)
            case [b"finish"] if self._loop is not None:
                self._loop.finish()
            case _:
                self.aborted = True
                if self._loop is not None:
                    self._loop.abort()


def main(plan_fd: int, spool_fd: int) -> None:
    """Run one share of a plan."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    raise_file_limit()
    commands = _Commands()
    setup = json.loads(commands.first_line())
    with open(plan_fd, "rb") as file:
        plan = LoadPlan.read(file)
    loop = LoadLoop(
        Endpoint.from_json(setup["endpoint"]),
        plan,
        lambda exchange: _write(spool_fd, exchange.to_frame()),
        first_chain=setup["worker"],
        chain_step=setup["workers"],
    )
    commands.drive(loop)
    loop.connect()
    _say({"ready": True})
    start_ns = commands.wait_for_start()
    if not commands.aborted:
        loop.run(start_ns)
        _say({"report": asdict(loop.report)})


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _say(document: dict[str, object]) -> None:
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
