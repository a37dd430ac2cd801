"""dbt as a child process: read the project, build the marts, write the docs site.

Everything dbt writes goes under `<state_dir>/dbt`: `target` (artifacts), `logs`, `docs` (the site), `manifest-<hash>.json` (the project
as read, named after its contents).
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from assets.rankings.errors import RankingsError

PROJECT_DIR = Path(__file__).resolve().parents[2] / "dbt_project"
# What libpq reads where a connection does not say (PostgreSQL manual, "Environment Variables" of libpq).
LIBPQ_VARIABLES = {
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslcrl": "PGSSLCRL",
    "channel_binding": "PGCHANNELBINDING",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "options": "PGOPTIONS",
    "application_name": "PGAPPNAME",
}
CONNECTION_VARIABLES = ("DYNO_PG_HOST", "DYNO_PG_PORT", "DYNO_PG_USER", "DYNO_PG_PASSWORD", "DYNO_PG_DBNAME")

_SUCCESSFUL = frozenset({"success", "pass", "warn", "no-op"})
_MAX_ERRORS_SHOWN = 5
# the project is read without a connection, but its profile must still render
_NO_CONNECTION = dict(zip(CONNECTION_VARIABLES, ("localhost", "5432", "nobody", "none", "none"), strict=True))


class DbtError(RankingsError):
    """dbt failed; the message has its own first errors and says where the full log is."""


@dataclass(frozen=True, slots=True)
class NodeResult:
    """How one model, data test or unit test went. `status` is dbt's: success, pass, warn, error, fail, skipped.

    `failures` are the rows that a test found; `rows` those that a table got (None where dbt does not say); times are in seconds.
    """

    unique_id: str
    resource_type: str
    status: str
    execution_time_s: float
    failures: int
    rows: int | None
    message: str

    @property
    def ok(self) -> bool:
        """Whether it did what it should, warnings included."""
        return self.status in _SUCCESSFUL


def connection_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The DYNO_PG_* variables that the profile reads: as set, or taken from DYNO_DATABASE_URL where they are not.

    Raises DbtError when neither says where the database is.
    """
    if all(name in environ for name in CONNECTION_VARIABLES):
        return {name: environ[name] for name in CONNECTION_VARIABLES}
    if "DYNO_DATABASE_URL" not in environ:
        raise DbtError("dbt does not know the database: set DYNO_DATABASE_URL, or all of " + ", ".join(CONNECTION_VARIABLES))
    try:
        url = make_url(environ["DYNO_DATABASE_URL"])
    except ArgumentError:
        raise DbtError("DYNO_DATABASE_URL is not a database URL; give postgresql+psycopg2://user:password@host:port/name") from None
    return variables_of(url)


def variables_of(url: URL) -> dict[str, str]:
    """The DYNO_PG_* variables of a database URL, and libpq's own (PGSSLMODE, ...) for its options: dbt connects as everything else does.

    Raises DbtError for an option that has no such variable.
    """
    options = {name: value if isinstance(value, str) else value[0] for name, value in url.query.items()}
    host = options.pop("host", None) or url.host or "localhost"
    port = options.pop("port", None) or str(url.port or 5432)
    user, password = options.pop("user", None) or url.username or "", options.pop("password", None) or str(url.password or "")
    database = options.pop("dbname", None) or url.database or ""
    unknown = sorted(set(options) - set(LIBPQ_VARIABLES))
    if unknown:
        raise DbtError(f"DYNO_DATABASE_URL: dbt cannot be given {', '.join(unknown)}; known options are {', '.join(LIBPQ_VARIABLES)}")
    variables = dict(zip(CONNECTION_VARIABLES, (host, port, user, password, database), strict=True))
    return {**variables, **{LIBPQ_VARIABLES[name]: value for name, value in options.items()}}


def prepare(state_dir: Path, project_dir: Path = PROJECT_DIR) -> Path:
    """The project's manifest, read again only when a file of the project or dbt itself has changed. Needs no database.

    Raises DbtError when the project cannot be read.
    """
    dbt_dir = state_dir / "dbt"
    manifest = dbt_dir / f"manifest-{_fingerprint(project_dir)}.json"
    if manifest.exists():
        return manifest
    dbt_dir.mkdir(parents=True, exist_ok=True)
    # read into a folder of its own: several processes may prepare at once, and each must find a whole file
    with tempfile.TemporaryDirectory(dir=dbt_dir, prefix="parse-") as folder:
        command = _command("parse", project_dir, Path(folder), dbt_dir / "logs")
        list(_run(command, _NO_CONNECTION | dict(os.environ), dbt_dir / "logs"))
        (Path(folder) / "manifest.json").replace(manifest)
    for old in dbt_dir.glob("manifest-*.json"):
        if old != manifest:
            old.unlink(missing_ok=True)
    return manifest


def stream(
    environ: Mapping[str, str], state_dir: Path, *, command: str = "build", select: Sequence[str] = (), project_dir: Path = PROJECT_DIR
) -> Iterator[NodeResult]:
    """Run dbt `build`, `run` or `test` and yield each node's result as it finishes; with `select`, exactly the nodes named.

    Builds on one machine wait for one another. Raises DbtError at the end when anything failed.
    """
    dbt_dir = state_dir / "dbt"
    arguments = _command(command, project_dir, dbt_dir / "target", dbt_dir / "logs")
    if select:
        arguments += ["--indirect-selection", "empty", "--select", *select]
    with _one_at_a_time(dbt_dir):
        yield from _run(arguments, dict(os.environ) | connection_environment(environ), dbt_dir / "logs")


def build(environ: Mapping[str, str], state_dir: Path, project_dir: Path = PROJECT_DIR) -> tuple[NodeResult, ...]:
    """Build all models and run all tests. Raises DbtError when anything failed."""
    return tuple(stream(environ, state_dir, project_dir=project_dir))


def docs(environ: Mapping[str, str], state_dir: Path, project_dir: Path = PROJECT_DIR) -> Path:
    """Write the docs site and return its folder: one `index.html` that needs nothing else. Raises DbtError when dbt failed."""
    dbt_dir = state_dir / "dbt"
    arguments = [*_command("docs", project_dir, dbt_dir / "target", dbt_dir / "logs"), "--static"]
    with _one_at_a_time(dbt_dir):
        list(_run(arguments, dict(os.environ) | connection_environment(environ), dbt_dir / "logs"))
        site = dbt_dir / "docs"
        site.mkdir(exist_ok=True)
        shutil.copyfile(dbt_dir / "target" / "static_index.html", site / "index.html.new")
        (site / "index.html.new").replace(site / "index.html")
    return site


def _fingerprint(project_dir: Path) -> str:
    digest = hashlib.sha256(importlib.metadata.version("dbt-core").encode())
    for path in sorted(project_dir.rglob("*")):
        if path.suffix in {".sql", ".yml", ".md"}:
            content = path.read_bytes()
            digest.update(f"\n{path.relative_to(project_dir).as_posix()} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()[:16]


def _command(command: str, project_dir: Path, target_dir: Path, log_dir: Path) -> list[str]:
    if not (project_dir / "dbt_project.yml").exists():
        raise DbtError(f"there is no dbt project in {project_dir}; run from a complete checkout")
    words = ["docs", "generate"] if command == "docs" else [command]
    # -P: modules come from the environment, not from the folder that dbt runs in
    return [
        *(sys.executable, "-P", "-c", "from dbt.cli.main import cli; cli()"),
        *("--log-format", "json", "--log-level", "debug", "--no-use-colors", "--no-send-anonymous-usage-stats"),
        *words,
        *("--project-dir", str(project_dir), "--profiles-dir", str(project_dir)),
        *("--target-path", str(target_dir.resolve()), "--log-path", str(log_dir.resolve())),
    ]


@contextmanager
def _one_at_a_time(dbt_dir: Path) -> Iterator[None]:
    """Two builds at once would drop each other's temporary tables."""
    dbt_dir.mkdir(parents=True, exist_ok=True)
    with (dbt_dir / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(arguments: Sequence[str], environ: Mapping[str, str], log_dir: Path) -> Iterator[NodeResult]:
    failed: list[str] = []
    other: list[str] = []
    with subprocess.Popen(arguments, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            for event in _events(process.stdout or (), other):
                result = _node_result(event)
                if result is not None:
                    if not result.ok and result.status != "skipped":
                        failed.append(f"{result.unique_id}: {result.message or result.status}")
                    yield result
                elif event["info"]["level"] == "error":
                    other.append(str(event["info"]["msg"]))
        finally:
            # also when the caller stops listening
            if process.poll() is None:
                process.terminate()
    if process.returncode != 0:
        # where a node failed, dbt's other errors repeat it
        errors = [error.strip() for error in failed or other] or [f"exit code {process.returncode}"]
        raise DbtError("\n".join(["dbt failed:", *errors[:_MAX_ERRORS_SHOWN], f"The full log is {log_dir / 'dbt.log'}"]))


def _events(lines: Iterable[str], strangers: list[str]) -> Iterator[dict[str, Any]]:
    """dbt's log events; a line that is none (of the interpreter's traceback, for example) is put aside."""
    for line in lines:
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            strangers.append(line)
            continue
        yield event


def _node_result(event: Mapping[str, Any]) -> NodeResult | None:
    if event["info"]["name"] != "NodeFinished":
        return None
    node, outcome = event["data"]["node_info"], event["data"]["run_result"]
    answer = outcome.get("adapter_response") or {}
    inserted = answer.get("code") in {"INSERT", "SELECT"} and node["resource_type"] == "model"
    return NodeResult(
        unique_id=node["unique_id"],
        resource_type=node["resource_type"],
        status=outcome["status"],
        execution_time_s=float(outcome.get("execution_time", 0.0)),
        failures=int(outcome.get("num_failures") or 0),
        rows=int(answer["rows_affected"]) if inserted else None,
        message=str(outcome.get("message") or ""),
    )
