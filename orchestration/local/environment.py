"""The environment that every process of Dyno gets. Pure: nothing here reads the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import make_url

from assets.rankings.dbt import variables_of
from orchestration.local.processes import INSTANCE_VARIABLE, OWNER_VARIABLE, instance_id
from orchestration.settings import REPO_ROOT, Settings

# A unix socket's path has 107 characters at most; Dagster puts sockets of about 20 characters into TMPDIR.
LONGEST_TEMPORARY_PATH = 80


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the data services answer. The URLs contain passwords: never print or log them. `api_url` is set while the API runs."""

    database_url: str
    dagster_database_url: str
    redis_url: str
    api_url: str | None = None

    def __repr__(self) -> str:
        return f"Endpoints(api_url={self.api_url!r}, the others hidden)"


def temporary_dir(state_dir: Path) -> Path | None:
    """The folder for temporary files; None when its path is too long for the sockets that Dagster puts there."""
    folder = state_dir / "tmp"
    return folder if len(os.fsencode(folder)) <= LONGEST_TEMPORARY_PATH else None


def marks(state_dir: Path, owner: str) -> dict[str, str]:
    """What every process carries so that none is left behind: its instance, and the process that it was started for."""
    return {INSTANCE_VARIABLE: instance_id(state_dir), OWNER_VARIABLE: owner}


def process_environment(settings: Settings, endpoints: Endpoints, *, base: Mapping[str, str], owner: str) -> dict[str, str]:
    """The environment of a Dagster, dbt, API or worker process.

    Args:
        settings: this instance's settings.
        endpoints: where the data services answer.
        base: the environment to add to, normally `os.environ`.
        owner: `processes.owner_mark()` of the command or supervisor that answers for the process.
    """
    state_dir = settings.state_dir
    temporary = temporary_dir(state_dir)
    inherited = base.get("PYTHONPATH", "")
    search_path = [str(REPO_ROOT), *(entry for entry in inherited.split(os.pathsep) if entry and entry != str(REPO_ROOT))]
    return {
        **base,
        **({"TMPDIR": str(temporary)} if temporary else {}),
        "PYTHONPATH": os.pathsep.join(search_path),
        "PYTHONUNBUFFERED": "1",
        "DYNO_STATE_DIR": str(state_dir),
        **({"DYNO_CHECKPOINTS": settings.checkpoints} if settings.checkpoints else {}),
        "DYNO_DATABASE_URL": endpoints.database_url,
        "DYNO_DAGSTER_DATABASE_URL": endpoints.dagster_database_url,
        "DYNO_REDIS_URL": endpoints.redis_url,
        **({"DYNO_ENGINE_ENVIRONMENTS": str(settings.engine_environments)} if settings.engine_environments else {}),
        "DAGSTER_HOME": str(state_dir / "dagster"),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DO_NOT_TRACK": "1",
        **({} if "HF_HOME" in base else {"HF_HOME": str(state_dir / "huggingface")}),
        **variables_of(make_url(endpoints.database_url)),
        **marks(state_dir, owner),
    }


@contextmanager
def applied(environment: Mapping[str, str]) -> Iterator[None]:
    """Give this process the environment for a while: for Dagster and dbt inside a command."""
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
