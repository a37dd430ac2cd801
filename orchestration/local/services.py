"""The processes beside the data services: how each is started, when it is ready, where it answers."""

from __future__ import annotations

import http.client
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2

from orchestration.local import ports, state
from orchestration.local.data import log_dir
from orchestration.local.environment import Endpoints
from orchestration.local.processes import Spawned, spawn
from orchestration.settings import REPO_ROOT, Settings

WORKSPACE_FILE = REPO_ROOT / "workspace.yaml"
READY_TIMEOUT_S = 180
STOP_TIMEOUT_S = 15
HTTP_TIMEOUT_S = 2.0
POLL_INTERVAL_S = 0.1


class ServiceError(Exception):
    """A service did not start; the message says where its log is."""


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """How to run one service. `command` and `ready` take its port (0 for a service without one); `path` is what a person opens."""

    name: str
    command: Callable[[int], list[str]]
    ready: Callable[[int], bool]
    log_file: Path
    preferred_port: int | None = None
    asked_port: int | None = None
    port_variable: str = ""
    path: str = "/"

    @property
    def has_port(self) -> bool:
        """Whether it listens."""
        return bool(self.port_variable)

    def choose_port(self, earlier: int | None = None) -> int:
        """A port to start on: the one asked for, else the earlier one, else the preferred one, else a free one.

        Raises:
            PortTakenError: the one asked for is in use.
        """
        if not self.has_port:
            return 0
        return ports.choose(self.asked_port, self.port_variable, earlier or self.preferred_port)

    def url(self, port: int) -> str | None:
        """What a person opens, None for a service without a port."""
        return f"http://{ports.HOST}:{port}{self.path}" if self.has_port else None

    def start(self, port: int, environment: Mapping[str, str]) -> Spawned:
        """Start it. Does not wait."""
        return spawn(self.name, self.command(port), environment, self.log_file, cwd=REPO_ROOT)


def answers(port: int, path: str) -> bool:
    """Whether a GET on a loopback port gives status 200. Never through a proxy."""
    connection = http.client.HTTPConnection(ports.HOST, port, timeout=HTTP_TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def daemon_beats(dagster_database_url: str, since: float) -> bool:
    """Whether Dagster's daemon has written a heartbeat later than `since` (seconds since the epoch)."""
    try:
        connection = psycopg2.connect(dagster_database_url.replace("+psycopg2", "", 1), connect_timeout=int(HTTP_TIMEOUT_S))
    except psycopg2.OperationalError:
        return False
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT max(extract(epoch FROM timestamp AT TIME ZONE 'UTC')) FROM daemon_heartbeats")
            row = cursor.fetchone()
    except psycopg2.Error:  # Dagster has not made its tables yet
        return False
    else:
        return row is not None and row[0] is not None and float(row[0]) >= since
    finally:
        connection.close()


def api_spec(settings: Settings) -> ServiceSpec:
    """The HTTP API."""
    return ServiceSpec(
        name="api",
        command=lambda port: [sys.executable, "-m", "uvicorn", "api.main:app", "--host", ports.HOST, "--port", str(port)],
        ready=lambda port: answers(port, "/healthz"),
        log_file=log_dir(settings) / "api.log",
        preferred_port=8000,
        asked_port=settings.api_port,
        port_variable="DYNO_API_PORT",
        path="/docs",
    )


def all_specs(settings: Settings, dagster_database_url: str) -> list[ServiceSpec]:
    """Every service of `./dyno up` beside the data services, in the order of their start; they stop in the opposite order."""
    logs, workspace, begun = log_dir(settings), str(WORKSPACE_FILE), time.time()
    return [
        ServiceSpec(
            name="dagster-webserver",
            command=lambda port: [sys.executable, "-m", "dagster_webserver", "-h", ports.HOST, "-p", str(port), "-w", workspace],
            ready=lambda port: answers(port, "/server_info"),
            log_file=logs / "dagster-webserver.log",
            preferred_port=3000,
            asked_port=settings.dagster_port,
            port_variable="DYNO_DAGSTER_PORT",
        ),
        ServiceSpec(
            name="dagster-daemon",
            command=lambda _: [sys.executable, "-m", "dagster._daemon", "run", "-w", workspace],
            ready=lambda _: daemon_beats(dagster_database_url, begun),
            log_file=logs / "dagster-daemon.log",
        ),
        api_spec(settings),
        ServiceSpec(
            name="dbt-docs",
            command=lambda port: [sys.executable, "-m", "orchestration.local.docs_site", str(port)],
            ready=lambda port: answers(port, "/index.html"),
            log_file=logs / "dbt-docs.log",
            preferred_port=8080,
            asked_port=settings.docs_port,
            port_variable="DYNO_DOCS_PORT",
        ),
    ]


def stop_all(spawned: list[Spawned], timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Stop several at once, so that the slowest one sets the time."""
    for child in spawned:
        if child.process.poll() is None:
            child.process.send_signal(child.stop_signal)
    deadline = time.monotonic() + timeout_s
    for child in spawned:
        child.stop(max(0.0, deadline - time.monotonic()))


@contextmanager
def service_api(settings: Settings, environment: Mapping[str, str]) -> Iterator[str]:
    """The API for the time of the block: the one of a running `./dyno up`, else one started here. Gives its base URL without a path.

    Raises:
        ServiceError: it does not start.
        PortTakenError: DYNO_API_PORT is set and in use.
    """
    record = state.read_record(settings.state_dir)
    running = record.service("api") if record is not None else None
    if running is not None and running.status == "ready" and running.port is not None:
        yield f"http://{ports.HOST}:{running.port}"
        return
    spec = api_spec(settings)
    port = spec.choose_port()
    child = spec.start(port, environment)
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not spec.ready(port):
            if child.process.poll() is not None or time.monotonic() > deadline:
                raise ServiceError(f"the API did not start (log: {child.log_file}):\n{child.log_tail()}")
            time.sleep(POLL_INTERVAL_S)
        yield f"http://{ports.HOST}:{port}"
    finally:
        child.stop(STOP_TIMEOUT_S)


def endpoints_with_api(endpoints: Endpoints, port: int) -> Endpoints:
    """The endpoints with the API's base URL."""
    return Endpoints(endpoints.database_url, endpoints.dagster_database_url, endpoints.redis_url, f"http://{ports.HOST}:{port}")
