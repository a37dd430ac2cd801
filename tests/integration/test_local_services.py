"""The services of one machine, for real: what starts, what stops, and what is left after the worst."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
import redis
from sqlalchemy import create_engine, text

from orchestration.local import identity, ports, state
from orchestration.local.data import data_services
from orchestration.local.external import ExternalServiceError
from orchestration.local.postgres import EmbeddedPostgres, PostgresError
from orchestration.local.processes import INSTANCE_VARIABLE, find_marked, instance_id
from orchestration.settings import REPO_ROOT, Settings
from tests.deadlines import eventually

pytestmark = pytest.mark.services

# A command that uses the data services until its standard input closes.
USER_OF_DATA = """
import sys
from orchestration.local.data import data_services
from orchestration.settings import load_settings
with data_services(load_settings()) as endpoints:
    print(endpoints.database_url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def settings(state_dir: Path) -> Settings:
    return Settings(state_dir=state_dir)


def running(state_dir: Path) -> list[str]:
    """Command lines of everything that works on this state folder, by its mark or by its arguments."""
    marked = {process.pid for process in find_marked(INSTANCE_VARIABLE, instance_id(state_dir))}
    found = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
            if process.status() != psutil.STATUS_ZOMBIE and (process.pid in marked or str(state_dir) in command):
                found.append(command)
        except psutil.Error:  # it ended meanwhile
            continue
    return found


def nothing_runs(state_dir: Path) -> None:
    eventually(lambda: not running(state_dir), f"everything on {state_dir} has ended", 30)


def execute(url: str, statement: str) -> Sequence[Any]:
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            result = connection.execute(text(statement))
            return result.fetchall() if result.returns_rows else []
    finally:
        engine.dispose()


@pytest.fixture
def commands(state_dir: Path) -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
    nothing_runs(state_dir)


def start(commands: list[subprocess.Popen[str]], *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-P", *arguments],
        env={**os.environ, "PYTHONPATH": str(REPO_ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    commands.append(process)
    return process


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_data_services_work_for_a_block_and_leave_nothing(settings: Settings) -> None:
    with data_services(settings) as endpoints:
        assert execute(endpoints.database_url, "SELECT current_database()")[0][0] == "dyno"
        assert execute(endpoints.dagster_database_url, "SELECT current_database()")[0][0] == "dagster"
        assert execute(endpoints.database_url, "SHOW listen_addresses")[0][0] == "127.0.0.1"
        cache = redis.Redis.from_url(endpoints.redis_url)
        assert cache.set("a", "1")
        cache.close()
        with data_services(settings) as inner:  # a command inside a command shares them
            assert inner == endpoints
        assert execute(endpoints.database_url, "SELECT 1")
    nothing_runs(settings.state_dir)
    assert not (settings.state_dir / "services.json").exists()
    assert not (settings.state_dir / "endpoints.json").exists()


def test_passwords_are_asked_for_and_readable_by_the_owner_only(settings: Settings) -> None:
    with data_services(settings) as endpoints:
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(endpoints.database_url.replace("+psycopg2", "").replace("dyno:", "dyno:x"))
        with pytest.raises(redis.AuthenticationError):
            redis.Redis.from_url("redis://" + endpoints.redis_url.partition("@")[2]).ping()
        password = (settings.state_dir / "postgres" / "password").read_text()
        readable = [path for path in settings.state_dir.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
        readable = [path for path in readable if path.parent.stat().st_mode & 0o077]
        assert readable, "the check below must look at something"
        assert not [path for path in readable if password in path.read_text(errors="replace")]
        assert not [line for line in running(settings.state_dir) if password in line]


def test_a_killed_command_leaves_nothing_and_its_data_is_there_again(settings: Settings, commands: list[subprocess.Popen[str]]) -> None:
    """kill -9 in the middle of use: the servers end with their parent, and PostgreSQL recovers."""
    first = start(commands, "-c", USER_OF_DATA)
    url = first_line(first)
    execute(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    first.kill()
    first.wait()
    nothing_runs(settings.state_dir)
    with data_services(settings) as endpoints:
        assert execute(endpoints.database_url, "SELECT answer FROM kept")[0][0] == 42


def test_a_second_command_shares_the_first_ones_services_and_keeps_them_up(
    settings: Settings, commands: list[subprocess.Popen[str]]
) -> None:
    """The first waits with stopping until the second has finished too."""
    first = start(commands, "-c", USER_OF_DATA)
    url = first_line(first)
    second = start(commands, "-c", USER_OF_DATA)
    assert first_line(second) == url
    assert first.stdin is not None
    first.stdin.close()  # the first command is done
    assert execute(url, "SELECT 1")
    with pytest.raises(state.StateInUseError, match=r"process \d+.*uses the state folder"), state.own(settings.state_dir):
        pass
    assert first.poll() is None
    assert second.stdin is not None
    second.stdin.close()
    assert second.wait(30) == 0
    assert first.wait(30) == 0
    nothing_runs(settings.state_dir)


def test_an_interrupted_first_start_is_done_again(state_dir: Path) -> None:
    """A killed initdb leaves half a cluster beside the place of the whole one."""
    half = state_dir / "postgres" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    server = EmbeddedPostgres(state_dir / "postgres", state_dir / "postgres.log", durable=False)
    assert execute(server.start(os.environ).url("dyno"), "SELECT 1")
    server.stop()
    assert not half.exists()


def test_a_pid_file_whose_number_belongs_to_a_stranger_does_not_stop_postgresql(state_dir: Path) -> None:
    """After a reboot the number in postmaster.pid may be anybody's; PostgreSQL alone would refuse to start."""
    server = EmbeddedPostgres(state_dir / "postgres", state_dir / "postgres.log", durable=False)
    server.start(os.environ)
    pid_file = server.data / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    server.stop()
    pid_file.write_text("\n".join([str(os.getppid()), *lines[1:]]) + "\n")
    assert execute(server.start(os.environ).url("dyno"), "SELECT 1")
    server.stop()


def test_a_cluster_without_its_version_file_is_never_overwritten(state_dir: Path) -> None:
    data = state_dir / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "precious").write_text("x")
    with pytest.raises(PostgresError, match="restore it from a backup"):
        EmbeddedPostgres(state_dir / "postgres", state_dir / "postgres.log").start(os.environ)
    assert (data / "precious").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another identity")
@pytest.mark.parametrize("kinds", [("namespace", "setuid"), ("setuid", "namespace")], ids="-then-".join)
def test_as_root_in_a_folder_that_only_root_may_enter(state_dir: Path, monkeypatch: pytest.MonkeyPatch, kinds: tuple[str, str]) -> None:
    """Both ways around PostgreSQL's refusal work, also one after the other on the same data: for the data and for the programs."""
    package = EmbeddedPostgres(state_dir, state_dir)._binaries.parents[1]
    for folder in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(folder, state_dir / "site" / folder.name, symlinks=True)
    monkeypatch.syspath_prepend(str(state_dir / "site"))
    state_dir.chmod(0o700)
    state_dir.parent.chmod(0o700)
    candidates = identity._candidates
    for answer, kind in enumerate(kinds):
        monkeypatch.setattr(identity, "_candidates", lambda folder, kind=kind: (one for one in candidates(folder) if one.kind == kind))
        server = EmbeddedPostgres(state_dir / "postgres", state_dir / "postgres.log", durable=False)
        try:
            endpoint = server.start(os.environ)
        except identity.IdentityError:
            pytest.skip(f"this machine does not allow the way {kind!r}")
        assert len(execute(endpoint.url("dyno"), "SELECT 1 FROM pg_tables WHERE tablename = 'kept'")) == answer
        execute(endpoint.url("dyno"), "CREATE TABLE IF NOT EXISTS kept ()")
        server.stop()


def test_no_identity_is_an_error_that_says_what_to_do(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwall", list)
    with pytest.raises(identity.IdentityError, match="run Dyno as an ordinary user"):
        identity.choose(state_dir, Path("/bin/true"))


def test_an_external_server_out_of_reach_is_an_error_without_its_password(settings: Settings) -> None:
    port = ports.any_free()
    external = settings.model_copy(
        update={"database_url": Settings(database_url=f"postgresql://me:s3cret@127.0.0.1:{port}/x").database_url}
    )
    with (
        pytest.raises(ExternalServiceError, match=r"DYNO_DATABASE_URL \(postgresql\+psycopg2://me:\*\*\*@") as caught,
        data_services(external),
    ):
        pass
    assert "s3cret" not in str(caught.value)


def test_external_servers_are_used_and_left_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, empty_postgres_url: str, redis_url: str
) -> None:
    """With both URLs set nothing of ours starts, and Dagster's database is made on the same server."""
    monkeypatch.setenv("DYNO_DATABASE_URL", empty_postgres_url)
    monkeypatch.setenv("DYNO_REDIS_URL", redis_url)
    with data_services(Settings(state_dir=settings.state_dir)) as endpoints:
        assert endpoints.database_url == empty_postgres_url
        assert endpoints.redis_url == redis_url
        assert execute(endpoints.dagster_database_url, "SELECT current_database()")[0][0] == "dagster"
        assert not (settings.state_dir / "postgres").exists()
    assert execute(empty_postgres_url, "SELECT 1")


def up(commands: list[subprocess.Popen[str]], state_dir: Path) -> tuple[subprocess.Popen[str], state.InstanceRecord]:
    """Start `dyno up`, wait until every service is ready."""
    process = start(commands, "-m", "orchestration.cli", "up")

    def ready() -> state.InstanceRecord | None:
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        record = state.read_record(state_dir)
        if record is None or not record.services or any(service.status != "ready" for service in record.services):
            return None
        return record

    record = eventually(ready, "every service of ./dyno up is ready", 200)
    assert record is not None
    return process, record


def test_up_is_killed_comes_back_with_its_data_and_stops_on_sigterm(state_dir: Path, commands: list[subprocess.Popen[str]]) -> None:
    """The life of `./dyno up`: everything answers; a crashed part is replaced; after kill -9 nothing is left; SIGTERM ends it cleanly."""
    process, record = up(commands, state_dir)
    endpoints = state.read_endpoints(state_dir)
    assert endpoints is not None
    assert {service.name for service in record.services} == {
        "postgres", "valkey", "dagster-webserver", "dagster-daemon", "api", "dbt-docs",
    }  # fmt: skip
    execute(endpoints.database_url, "CREATE TABLE kept AS SELECT 42 AS answer")

    status = subprocess.run(
        [sys.executable, "-m", "orchestration.cli", "status", "--json"], cwd=REPO_ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(status.stdout)["pid"] == process.pid
    again = start(commands, "-m", "orchestration.cli", "up")
    assert again.wait(60) == 1
    assert "already up" in (again.stdout.read() if again.stdout else "")

    for name in ("postgres", "api"):
        service = record.service(name)
        assert service is not None
        assert service.pid is not None
        os.kill(service.pid, signal.SIGKILL)

    def replaced() -> bool:
        now = state.read_record(state_dir)
        parts = [now.service(name) for name in ("postgres", "api")] if now else []
        return bool(parts) and all(part is not None and part.status == "ready" and part.restarts == 1 for part in parts)

    eventually(replaced, "the killed services run again", 60)
    assert execute(endpoints.database_url, "SELECT answer FROM kept")[0][0] == 42

    process.kill()
    process.wait()
    nothing_runs(state_dir)

    process, _ = up(commands, state_dir)
    endpoints = state.read_endpoints(state_dir)
    assert endpoints is not None
    assert execute(endpoints.database_url, "SELECT answer FROM kept")[0][0] == 42
    process.terminate()
    assert process.wait(90) == 0
    nothing_runs(state_dir)
    assert state.read_record(state_dir) is None
    assert not (state_dir / "postgres" / "data" / "postmaster.pid").exists()


def test_a_taken_port_stops_up_before_anything_starts(
    state_dir: Path, commands: list[subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with data_services(Settings(state_dir=state_dir.parent / "other")) as endpoints:
        taken = endpoints.redis_url.rpartition(":")[2].partition("/")[0]
        monkeypatch.setenv("DYNO_DAGSTER_PORT", taken)
        process = start(commands, "-m", "orchestration.cli", "up")
        assert process.wait(60) == 1
    output = process.stdout.read() if process.stdout else ""
    assert f"error: port {taken} is taken by valkey-server" in output
    assert "DYNO_DAGSTER_PORT" in output
    assert "Traceback" not in output
    assert not (state_dir / "postgres").exists()


def test_down_ends_what_a_killed_supervisor_and_its_guard_left(state_dir: Path, commands: list[subprocess.Popen[str]]) -> None:
    """The last safety net: a grandchild whose whole family was killed carries the mark of a dead owner."""
    orphan = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        env={**os.environ, INSTANCE_VARIABLE: instance_id(state_dir), "DYNO_OWNER": "999999999:1"},
    )
    commands.append(orphan)  # type: ignore[arg-type]
    eventually(lambda: running(state_dir), "the orphan runs", 10)
    down = subprocess.run([sys.executable, "-m", "orchestration.cli", "down"], cwd=REPO_ROOT, capture_output=True, text=True, check=True)
    assert "ended 1 process" in down.stderr
    assert orphan.wait(10) is not None
