"""Load processes, one schedule between them: starts them, gives each its share, starts all at one instant, and reads what they finished."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, perf_counter_ns
from types import TracebackType
from typing import IO, Any

from assets.benchmark.load.endpoint import Endpoint
from assets.benchmark.load.exchange import Exchange, SpoolReader
from assets.benchmark.load.plan import LoadPlan

# All processes have the start command by then.
START_DELAY_NS = 20_000_000
EXIT_TIMEOUT_S = 5.0
# What one process carries at ease: well under a core at 20 ms between tokens (docs/load-generator.md).
STREAMS_PER_PROCESS = 1024
_ROOT = Path(__file__).resolve().parents[3]
_ERROR_CHARACTERS = 2000


class LoadProcessError(Exception):
    """A load process ended by itself; the message has its last words."""


@dataclass(frozen=True, slots=True)
class ClientReport:
    """What the load generator itself cost, over all its processes. `cpu_share_max` is of the busiest process in its busiest half second."""

    processes: int
    cpu_s: float
    cpu_share_max: float
    arrivals: int
    connections: int
    reused_connections: bool


def default_processes(streams: int) -> int:
    """As many as the streams ask for, and no more than there are cores."""
    return max(1, min(len(os.sched_getaffinity(0)), -(-streams // STREAMS_PER_PROCESS)))


class LoadRun:
    """A load point being run by `processes` processes. Connections are open when the constructor returns.

    A context manager: on leaving it no process is left, whatever happened.
    """

    def __init__(self, endpoint: Endpoint, plan: LoadPlan, processes: int = 1) -> None:
        """Raises LoadProcessError."""
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        processes = min(processes, len(plan.chains))
        if plan.streams_start_s is not None:
            processes = min(processes, len(plan.streams_start_s))
        try:
            for index in range(processes):
                worker = _Worker(endpoint, plan.share(index, processes), index, processes)
                self._workers.append(worker)
                self._selector.register(worker.stdout, selectors.EVENT_READ, worker)
            while not all(worker.ready for worker in self._workers):
                self._listen(None)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> LoadRun:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """See close."""
        self.close()

    def start(self) -> int:
        """Start the load; returns the instant (CLOCK_MONOTONIC, nanoseconds) from which the plan's seconds count."""
        start_ns = perf_counter_ns() + START_DELAY_NS
        self._command(f"start {start_ns}")
        return start_ns

    def finish(self) -> None:
        """Send nothing new; what is under way is finished."""
        self._command("finish")

    def wait(self, timeout_s: float) -> bool:
        """Whether all requests have ended, within `timeout_s`. Raises LoadProcessError."""
        until = monotonic() + timeout_s
        while not self.ended and (left := until - monotonic()) > 0:
            self._listen(left)
        return self.ended

    @property
    def ended(self) -> bool:
        """All requests have ended."""
        return all(worker.report is not None for worker in self._workers)

    @property
    def requests_done(self) -> int:
        """How many requests have ended so far, found without decoding them."""
        return sum(worker.count_done() for worker in self._workers)

    def new_exchanges(self) -> Iterator[Exchange]:
        """Those that have ended since the last call."""
        for worker in self._workers:
            yield from worker.spool.new_exchanges()

    def report(self) -> ClientReport:
        """What the run cost. Raises ValueError before its end."""
        reports = [worker.report for worker in self._workers if worker.report is not None]
        if len(reports) < len(self._workers):
            raise ValueError("the load point has not ended")
        return ClientReport(
            processes=len(reports),
            cpu_s=sum(report["cpu_s"] for report in reports),
            cpu_share_max=max(report["cpu_share_max"] for report in reports),
            arrivals=sum(report["arrivals"] for report in reports),
            connections=sum(report["connections"] for report in reports),
            reused_connections=all(report["reused_connections"] for report in reports),
        )

    def close(self) -> None:
        """End the processes."""
        self._selector.close()
        for worker in self._workers:
            worker.close()

    def _command(self, line: str) -> None:
        for worker in self._workers:
            worker.command(line)

    def _listen(self, timeout_s: float | None) -> None:
        for key, _ in self._selector.select(timeout_s):
            key.data.hear()
            if key.data.report is not None:
                self._selector.unregister(key.fileobj)


class _Worker:
    """One load process and its spool."""

    def __init__(self, endpoint: Endpoint, plan: LoadPlan, index: int, count: int) -> None:
        self.ready = False
        self.report: dict[str, Any] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close
        self._spool_file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close
        self._heard = b""
        self._counted_to = self._done = 0
        with tempfile.TemporaryFile() as plan_file:
            plan.write(plan_file)
            plan_file.flush()
            plan_file.seek(0)
            fds = (plan_file.fileno(), self._spool_file.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-m", "assets.benchmark.load.process", *map(str, fds)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                pass_fds=fds,
                cwd=_ROOT,
            )
        self._stdin, self.stdout = _pipe(self._process.stdin), _pipe(self._process.stdout)
        self.spool = SpoolReader(lambda offset, size: os.pread(self._spool_file.fileno(), size, offset))
        self.command(json.dumps({"endpoint": endpoint.to_json(), "worker": index, "workers": count}))

    def command(self, line: str) -> None:
        """A line to its standard input. Raises LoadProcessError."""
        try:
            self._stdin.write(line.encode() + b"\n")
            self._stdin.flush()
        except OSError:
            self._fail()

    def hear(self) -> None:
        """Take what it says. Raises LoadProcessError when it has ended without a report."""
        data = os.read(self.stdout.fileno(), 65_536)
        if not data and self.report is None:
            self._fail()
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            document = json.loads(line)
            self.ready = self.ready or "ready" in document
            self.report = document.get("report", self.report)

    def count_done(self) -> int:
        """Frames in the spool, counted by their lengths."""
        fd = self._spool_file.fileno()
        while len(length := os.pread(fd, 8, self._counted_to)) == 8:
            self._counted_to += int.from_bytes(length, "little")
            self._done += 1
        return self._done

    def close(self) -> None:
        """End it, and drop its spool."""
        with suppress(BrokenPipeError):
            self._stdin.close()
        try:
            self._process.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.stdout.close()
        self._spool_file.close()
        self._errors.close()

    def _fail(self) -> None:
        code = self._process.wait()
        self._errors.seek(0)
        words = self._errors.read().decode("utf-8", "replace").strip()[-_ERROR_CHARACTERS:]
        raise LoadProcessError(f"a load process ended with code {code}: {words or 'it said nothing'}")


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise RuntimeError("a process was started without its pipes")
    return pipe
