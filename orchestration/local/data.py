"""PostgreSQL and the cache: embedded or external, and the same to whoever uses them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from orchestration.local import external, state
from orchestration.local.environment import Endpoints, marks, temporary_dir
from orchestration.local.guard import end_owned, guarded
from orchestration.local.postgres import EmbeddedPostgres
from orchestration.local.processes import Spawned, data_mark, end_processes, instance_id, leftovers, owner_mark
from orchestration.local.state import InstanceRecord, ServiceRecord
from orchestration.local.valkey import EmbeddedValkey
from orchestration.settings import Settings, StateFolderError, describe_state_dir_error, prepare_state_dir

REUSE_TIMEOUT_S = 180
POLL_INTERVAL_S = 0.2
# What a database or a cache needs; secrets of the caller (tokens) stay out of their environment.
INHERITED_VARIABLES = ("PATH", "HOME", "LANG", "DYNO_TEST_RUN")


def log_dir(settings: Settings) -> Path:
    """Where every service's log is."""
    return settings.state_dir / "logs"


class DataServices:
    """PostgreSQL and Valkey of one instance. Whoever starts them holds the state folder (state.own)."""

    def __init__(self, settings: Settings, owner: str) -> None:
        self._settings = settings
        environment = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
        self._environment = environment | marks(settings.state_dir, data_mark(owner))
        logs = log_dir(settings)
        self.postgres = EmbeddedPostgres(settings.state_dir / "postgres", logs / "postgres.log") if settings.database_url is None else None
        self.valkey = EmbeddedValkey(settings.state_dir / "valkey", logs / "valkey.log") if settings.redis_url is None else None
        self._ports: dict[str, int | None] = {"postgres": settings.postgres_port, "valkey": settings.redis_port}
        self._starts = {"postgres": 0, "valkey": 0}

    def start(self) -> Endpoints:
        """Start what is embedded, check what is external.

        Raises:
            PostgresError, ValkeyError, PortTakenError, IdentityError, ExternalServiceError: with what to do.
        """
        settings = self._settings
        if settings.database_url is not None:
            database_url = settings.database_url.get_secret_value()
            external.check_postgres(database_url, "DYNO_DATABASE_URL")
            if settings.dagster_database_url is not None:
                dagster_url = settings.dagster_database_url.get_secret_value()
                external.check_postgres(dagster_url, "DYNO_DAGSTER_DATABASE_URL")
            else:
                dagster_url = external.with_database(database_url, "dagster")
                external.check_postgres(dagster_url, "DYNO_DATABASE_URL", create=True)
        else:
            database_url, dagster_url = self.start_postgres()
            if settings.dagster_database_url is not None:
                dagster_url = settings.dagster_database_url.get_secret_value()
                external.check_postgres(dagster_url, "DYNO_DAGSTER_DATABASE_URL")
        if settings.redis_url is not None:
            redis_url = settings.redis_url.get_secret_value()
            external.check_redis(redis_url, "DYNO_REDIS_URL")
        else:
            redis_url = self.start_valkey()
        return Endpoints(database_url, dagster_url, redis_url)

    def start_postgres(self) -> tuple[str, str]:
        """Start the embedded PostgreSQL, a second time on the same port; gives the URLs of Dyno's and of Dagster's database."""
        if self.postgres is None:
            raise AssertionError("an external PostgreSQL is not ours to start")
        endpoint = self.postgres.start(self._environment, self._ports["postgres"])
        self._ports["postgres"] = endpoint.port
        self._starts["postgres"] += 1
        return endpoint.url("dyno"), endpoint.url("dagster")

    def start_valkey(self) -> str:
        """Start the embedded Valkey, a second time on the same port and with the same password; gives its URL."""
        if self.valkey is None:
            raise AssertionError("an external Redis is not ours to start")
        url = self.valkey.start(self._environment, self._ports["valkey"])
        self._ports["valkey"] = int(url.rpartition(":")[2].partition("/")[0])
        self._starts["valkey"] += 1
        return url

    def stop(self) -> None:
        """Stop what was started."""
        for server in (self.valkey, self.postgres):
            if server is not None:
                server.stop()

    def records(self) -> tuple[ServiceRecord, ...]:
        """The two as services.json tells them."""
        running = self._spawned()
        records = []
        for name, server in (("postgres", self.postgres), ("valkey", self.valkey)):
            if server is None:
                records.append(ServiceRecord(name, "external", None, None, None, None))
                continue
            pid = running[name].process.pid if name in running else None
            restarts = max(0, self._starts[name] - 1)
            records.append(
                ServiceRecord(name, "ready" if pid else "starting", pid, self._ports[name], None, str(server.log_file), restarts)
            )
        return tuple(records)

    def _spawned(self) -> dict[str, Spawned]:
        servers = {"postgres": self.postgres, "valkey": self.valkey}
        return {name: server.spawned for name, server in servers.items() if server is not None and server.spawned is not None}


def prepare_instance(settings: Settings) -> None:
    """Make the state folder's parts, and end what a killed command left. The caller holds the state folder.

    Raises:
        StateFolderError: the folder cannot be used.
    """
    try:
        log_dir(settings).mkdir(parents=True, exist_ok=True)
        if (temporary := temporary_dir(settings.state_dir)) is not None:
            temporary.mkdir(exist_ok=True)
    except OSError as error:
        raise StateFolderError(describe_state_dir_error(settings.state_dir, error)) from error
    end_processes(leftovers(instance_id(settings.state_dir)))


@contextmanager
def data_services(settings: Settings) -> Iterator[Endpoints]:
    """PostgreSQL and the cache for the time of the block: those of a running `./dyno up` or of another command, else started here.

    At the end of the block every process that carries this process' mark is ended; services that were started here are stopped, once
    other commands that came to use them have finished. Call it in the main thread. The catalog's schema is not touched.

    Raises:
        StateFolderError, StateInUseError, PostgresError, ValkeyError, PortTakenError, IdentityError, ExternalServiceError: with what to do.
    """
    prepare_state_dir(settings.state_dir)
    owner = owner_mark()
    deadline = time.monotonic() + REUSE_TIMEOUT_S
    while True:
        with state.try_own(settings.state_dir) as owned:
            if owned:
                with _own_services(settings, owner) as endpoints:
                    yield endpoints
                return
        with state.share(settings.state_dir) as shared:
            record = state.read_record(settings.state_dir) if shared else None
            endpoints_in_use = state.read_endpoints(settings.state_dir) if record is not None else None
            if record is not None and endpoints_in_use is not None:
                if record.owner == owner:  # a block inside a block: the outer one cleans up
                    yield endpoints_in_use
                    return
                with guarded(owner, os.environ):
                    try:
                        yield endpoints_in_use
                    finally:
                        end_owned(owner)
                return
        if time.monotonic() > deadline:
            raise state.StateInUseError(state.describe_owner(settings.state_dir))
        time.sleep(POLL_INTERVAL_S)


@contextmanager
def _own_services(settings: Settings, owner: str) -> Iterator[Endpoints]:
    prepare_instance(settings)
    services = DataServices(settings, owner)
    with guarded(owner, os.environ):
        try:
            endpoints = services.start()
            state.write_record(settings.state_dir, record_of("temporary", owner, services.records()), endpoints)
            try:
                yield endpoints
            finally:
                end_owned(owner)
                with state.when_unused(settings.state_dir):
                    state.remove_record(settings.state_dir)
        finally:
            services.stop()


def record_of(mode: state.Mode, owner: str, services: tuple[ServiceRecord, ...]) -> InstanceRecord:
    """A record of this process as the owner, named by the command that it runs."""
    command = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "python")
    return InstanceRecord(mode, command, owner, datetime.now(UTC).isoformat(timespec="seconds"), services)
