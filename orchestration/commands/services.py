"""`./dyno up`, `./dyno down` and `./dyno status`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import psutil
import typer

from orchestration import console
from orchestration.local import state
from orchestration.local.data import log_dir
from orchestration.local.processes import end_processes, instance_id, leftovers, wait_for_end
from orchestration.local.state import InstanceRecord, ServiceRecord
from orchestration.local.supervisor import Supervisor, SupervisorError
from orchestration.settings import REPO_ROOT, Settings, load_settings, prepare_state_dir

DETACHED_START_TIMEOUT_S = 300
STOP_TIMEOUT_S = 90
POLL_INTERVAL_S = 0.2
EXIT_NOT_RUNNING = 3
TITLES = {
    "dagster-webserver": "Dagster: assets, runs, checks",
    "dagster-daemon": "Dagster: queue, sensors, schedules",
    "api": "API: try it in the browser",
    "dbt-docs": "dbt docs: tables and lineage",
    "postgres": "PostgreSQL",
    "valkey": "Cache (Valkey)",
}


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once everything is ready, and leave it running.")] = False,
) -> None:
    """Start everything: databases, Dagster, API and docs, each on a free loopback port.

    Runs until Ctrl-C, which stops everything in order. A process that crashes is started again. Logs are in .dyno/logs.

    Examples:

      ./dyno up                                  run in this terminal

      ./dyno up --detach                         run in the background; ./dyno down stops it

      DYNO_DAGSTER_PORT=3100 ./dyno up           the Dagster UI on a port of your choice

      DYNO_DATABASE_URL=postgresql://me:secret@db:5432/dyno ./dyno up     your PostgreSQL instead of the embedded one
    """
    if detach:
        _up_detached()
        return
    settings = load_settings()
    console.note("starting; the first time takes a little longer")
    announced = _Announcer()
    Supervisor(settings, announced.tell).run()
    console.done("everything is stopped")


class _Announcer:
    """Says each change once, and where everything is when all services have settled."""

    def __init__(self) -> None:
        self._services: dict[str, ServiceRecord] = {}
        self._shown = False

    def tell(self, record: ServiceRecord) -> None:
        self._services[record.name] = record
        title = TITLES.get(record.name, record.name)
        if record.status in {"ready", "external"}:
            console.done(f"{title} {record.url or ''}".rstrip() + (" (external)" if record.status == "external" else ""))
        elif record.status == "restarting":
            console.warn(f"{record.name} ended unexpectedly; it is started again. Its log: {record.log}")
        elif record.status == "failed":
            console.fail(f"{record.name} keeps ending and stays down; the others go on. Its log: {record.log}")
        settled = len(self._services) == len(TITLES) and all(
            service.status in {"ready", "external", "failed"} for service in self._services.values()
        )
        if settled and not self._shown:
            self._shown = True
            _print_services(tuple(self._services.values()))
            console.note("press Ctrl-C to stop everything")


def _up_detached() -> None:
    settings = load_settings()
    prepare_state_dir(settings.state_dir)
    with state.try_own(settings.state_dir) as free:
        if not free:
            raise state.StateInUseError(state.describe_owner(settings.state_dir))
    log_dir(settings).mkdir(parents=True, exist_ok=True)
    log_file = log_dir(settings) / "supervisor.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestration.cli", "up"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=REPO_ROOT,
            env={**os.environ, "DYNO_STATE_DIR": str(settings.state_dir)},
            start_new_session=True,
        )
    try:
        services = _await_services(settings, process, log_file)
    except BaseException:
        process.terminate()  # it stops what it has started
        process.wait()
        raise
    _print_services(services)
    failed = [service.name for service in services if service.status == "failed"]
    if failed:
        raise SupervisorError(f"{', '.join(failed)} did not start; the rest runs. Logs: {log_dir(settings)}; ./dyno down stops it")
    console.done("running in the background; ./dyno down stops it")


def _await_services(settings: Settings, process: subprocess.Popen[bytes], log_file: Path) -> tuple[ServiceRecord, ...]:
    """The services of a detached supervisor, once none is still starting. Raises SupervisorError."""
    deadline = time.monotonic() + DETACHED_START_TIMEOUT_S
    with console.err.status("starting"):
        while True:
            if process.poll() is not None:
                text = log_file.read_text(encoding="utf-8", errors="replace").strip()
                raise SupervisorError(text.rpartition("error: ")[2] or f"it ended at once (log: {log_file})")
            record = state.read_record(settings.state_dir)
            waiting = [service.name for service in record.services if service.status in {"starting", "restarting"}] if record else ["all"]
            if record is not None and record.pid == process.pid and record.services and not waiting:
                return record.services
            if time.monotonic() > deadline:
                raise SupervisorError(f"not ready after {DETACHED_START_TIMEOUT_S} s: {', '.join(waiting)}. Logs: {log_dir(settings)}")
            time.sleep(POLL_INTERVAL_S)


def down() -> None:
    """Stop what `./dyno up` started, and end anything that a killed command left behind.

    Data stays in the state folder (.dyno by default); `./dyno up` finds it again.

    Examples:

      ./dyno down

      ./dyno down && rm -r .dyno      also forget all data
    """
    settings = load_settings()
    if not settings.state_dir.is_dir():
        console.note(f"nothing is running: there is no state folder {settings.state_dir}")
        return
    record = state.read_record(settings.state_dir)
    if record is not None and record.mode == "temporary":
        raise state.StateInUseError(state.describe_owner(settings.state_dir))
    if record is not None:
        _stop_supervisor(record)
    with state.try_own(settings.state_dir) as free:
        if free:
            state.remove_record(settings.state_dir)
    left = leftovers(instance_id(settings.state_dir))
    end_processes(left)
    state_words = "stopped" if record is not None else "nothing was running"
    console.done(state_words + (f"; ended {len(left)} processes that a killed command had left" if left else ""))


def _stop_supervisor(record: InstanceRecord) -> None:
    try:
        supervisor = psutil.Process(record.pid)
        with console.err.status("stopping"):
            supervisor.terminate()
            for process in wait_for_end([supervisor], STOP_TIMEOUT_S):  # its guard ends the rest
                process.send_signal(signal.SIGKILL)
                wait_for_end([process], STOP_TIMEOUT_S)
    except psutil.NoSuchProcess:
        return
    except psutil.AccessDenied:
        raise state.StateInUseError(f"Dyno was started by another user (process {record.pid}): run ./dyno down as that user") from None


def status(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Show what runs, where, and how it is doing. Exit code 0 when Dyno is up, 3 when it is not.

    Examples:

      ./dyno status

      ./dyno status --json | jq -r '.services[] | select(.name == "api").url'
    """
    settings = load_settings()
    record = state.read_record(settings.state_dir) if settings.state_dir.is_dir() else None
    if as_json:
        document = {"running": False, "state_dir": str(settings.state_dir), "services": []}
        console.print_json(document if record is None else {**document, "running": True, "pid": record.pid, **asdict(record)})
    elif record is None:
        console.note(f"not running (state folder {settings.state_dir}); start it with ./dyno up")
    else:
        _print_services(record.services)
        if record.mode == "temporary":
            console.note(f"started by `./dyno {record.command}` (process {record.pid}) for itself")
    if record is None:
        raise typer.Exit(EXIT_NOT_RUNNING)


def _print_services(services: tuple[ServiceRecord, ...]) -> None:
    rows = [
        (
            TITLES.get(service.name, service.name),
            service.status,
            service.url or (str(service.port) if service.port else None),
            service.pid,
            service.restarts,
        )
        for service in services
    ]
    console.print_table("Dyno", ("service", "status", "address or port", "process", "restarts"), rows)
    console.note(f"logs: {log_dir(load_settings())}")
