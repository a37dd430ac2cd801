"""Runs everything of `./dyno up`: starts it in order, restarts what crashes, and stops it in order."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Literal

from orchestration.local import ports, state
from orchestration.local.data import DataServices, prepare_instance, record_of
from orchestration.local.environment import Endpoints, process_environment
from orchestration.local.guard import end_owned, guarded
from orchestration.local.prepare import end_stale_runs, prepare_all
from orchestration.local.processes import Spawned, owner_mark
from orchestration.local.services import READY_TIMEOUT_S, ServiceSpec, all_specs, endpoints_with_api, stop_all
from orchestration.local.state import InstanceRecord, ServiceRecord
from orchestration.settings import Settings, prepare_state_dir

POLL_INTERVAL_S = 0.25
RESTART_LIMIT = 5
FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 30.0
STABLE_AFTER_S = 60.0
RUN_END_GRACE_S = 10.0


class SupervisorError(Exception):
    """A part that everything else needs cannot be kept running; the message says where its log is."""


class StopRequestedError(BaseException):
    """Ctrl-C, SIGTERM or SIGHUP. Not an Exception: no handler of errors may swallow it."""


def backoff_s(restarts: int) -> float:
    """How long to wait before restart number `restarts` (1, 2, ...), in seconds: doubling, with an upper limit."""
    return float(min(FIRST_BACKOFF_S * 2 ** (restarts - 1), LONGEST_BACKOFF_S))


@dataclass
class Watched:
    """One service and how it is doing. Times are of time.monotonic()."""

    spec: ServiceSpec
    port: int
    status: Literal["starting", "ready", "restarting", "failed"] = "starting"
    child: Spawned | None = None
    restarts: int = 0
    consecutive: int = 0
    since: float = 0.0

    def failed(self, now: float) -> None:
        """It ended or did not start: another try after a pause, or none any more."""
        self.consecutive += 1
        self.status = "failed" if self.consecutive > RESTART_LIMIT else "restarting"
        self.since = now

    def record(self) -> ServiceRecord:
        """As services.json tells it."""
        alive = self.child is not None and self.child.process.poll() is None
        pid = self.child.process.pid if self.child is not None and alive else None
        port = self.port if self.spec.has_port else None
        return ServiceRecord(self.spec.name, self.status, pid, port, self.spec.url(self.port), str(self.spec.log_file), self.restarts)


class Supervisor:
    """`on_change` is told each service's new state, in the main thread."""

    def __init__(self, settings: Settings, on_change: Callable[[ServiceRecord], None]) -> None:
        self._settings = settings
        self._on_change = on_change
        self._owner = owner_mark()
        self._data = DataServices(settings, self._owner)
        self._data_restarts = {"postgres": 0, "valkey": 0}
        self._data_since = dict.fromkeys(self._data_restarts, 0.0)
        self._watched: list[Watched] = []
        self._record: InstanceRecord | None = None
        self._endpoints: Endpoints | None = None

    def run(self) -> None:
        """Start everything and keep it running until Ctrl-C, SIGTERM or SIGHUP; everything is stopped when this returns or raises.

        Raises:
            StateInUseError, StateFolderError, PortTakenError: before anything starts.
            SupervisorError, PostgresError, ValkeyError, ExternalServiceError: a data service cannot be kept running.
        """
        folder = prepare_state_dir(self._settings.state_dir)
        try:
            with state.own(folder), guarded(self._owner, os.environ), _stop_signals(_request_stop):
                try:
                    prepare_instance(self._settings)
                    self._start()
                    self._watch()
                finally:
                    # a second Ctrl-C must not leave half of the processes behind
                    with _stop_signals(signal.SIG_IGN):
                        self._stop()
        except StopRequestedError:
            return

    def _start(self) -> None:
        settings = self._settings
        for spec in all_specs(settings, ""):  # a taken port is an error before anything has started
            spec.choose_port()
        endpoints = self._data.start()
        self._record = record_of("up", self._owner, ())
        for record in self._data.records():
            self._on_change(record)
        prepare_all(settings, endpoints)
        if settings.database_url is None and settings.dagster_database_url is None:  # others may work with a database that is not ours
            end_stale_runs(settings, endpoints)
        self._watched = [Watched(spec, spec.choose_port()) for spec in all_specs(settings, endpoints.dagster_database_url)]
        api_port = next(watched.port for watched in self._watched if watched.spec.name == "api")
        self._endpoints = endpoints_with_api(endpoints, api_port)
        for watched in self._watched:
            self._launch(watched)
        self._tell()

    def _launch(self, watched: Watched) -> None:
        if self._endpoints is None:
            raise AssertionError("services start after the data services")
        watched.port = watched.spec.choose_port(watched.port)
        if watched.spec.name == "api":  # at a restart its port may have become somebody else's
            self._endpoints = endpoints_with_api(self._endpoints, watched.port)
        environment = process_environment(self._settings, self._endpoints, base=os.environ, owner=self._owner)
        watched.child = watched.spec.start(watched.port, environment)
        watched.status, watched.since = "starting", time.monotonic()

    def _watch(self) -> None:
        while True:
            changed = self._check_data()
            for watched in self._watched:
                changed |= self._check(watched)
            if changed:
                self._tell()
            time.sleep(POLL_INTERVAL_S)

    def _check(self, watched: Watched) -> bool:
        """Move one service on to its next state; gives whether it has changed."""
        before = watched.status
        now = time.monotonic()
        if watched.status in {"starting", "ready"} and watched.child is not None:
            if watched.child.process.poll() is not None or (watched.status == "starting" and now - watched.since > READY_TIMEOUT_S):
                watched.child.stop(0)
                watched.failed(now)
            elif watched.status == "starting" and watched.spec.ready(watched.port):
                watched.status, watched.since = "ready", now
            elif watched.status == "ready" and now - watched.since > STABLE_AFTER_S:
                watched.consecutive = 0
        elif watched.status == "restarting" and now - watched.since >= backoff_s(watched.consecutive):
            watched.restarts += 1
            try:
                self._launch(watched)
            except ports.PortTakenError:  # the port asked for: somebody may give it back
                watched.failed(now)
        if watched.status == before:
            return False
        self._on_change(watched.record())
        return True

    def _check_data(self) -> bool:
        changed = False
        for name, server, start in (
            ("postgres", self._data.postgres, self._data.start_postgres),
            ("valkey", self._data.valkey, self._data.start_valkey),
        ):
            if server is None or server.spawned is None or server.spawned.process.poll() is None:
                continue
            if time.monotonic() - self._data_since[name] > STABLE_AFTER_S:
                self._data_restarts[name] = 0
            self._data_restarts[name] += 1
            if self._data_restarts[name] > RESTART_LIMIT:
                raise SupervisorError(
                    f"{name} ended {RESTART_LIMIT + 1} times in a row (log: {server.log_file}):\n{server.spawned.log_tail()}"
                )
            before = next(record for record in self._data.records() if record.name == name)
            self._on_change(replace(before, status="restarting", pid=None))
            time.sleep(backoff_s(self._data_restarts[name]))
            start()
            self._data_since[name] = time.monotonic()
            self._on_change(next(record for record in self._data.records() if record.name == name))
            changed = True
        return changed

    def _tell(self) -> None:
        if self._record is None or self._endpoints is None:
            return
        services = (*self._data.records(), *(watched.record() for watched in self._watched))
        state.write_record(self._settings.state_dir, replace(self._record, services=services), self._endpoints)

    def _stop(self) -> None:
        state.remove_record(self._settings.state_dir)
        stop_all([watched.child for watched in reversed(self._watched) if watched.child is not None])
        # run workers and engines write to the database while they end
        end_owned(self._owner, grace_s=RUN_END_GRACE_S)
        self._data.stop()


def _request_stop(_number: int, _frame: FrameType | None) -> None:
    raise StopRequestedError


@contextmanager
def _stop_signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
