"""What must be in place before Dagster and the API start: the instance's configuration, the catalog's schema, dbt's manifest."""

from __future__ import annotations

import os
from pathlib import Path

from orchestration.local.environment import Endpoints, applied, process_environment
from orchestration.local.processes import owner_mark
from orchestration.settings import REPO_ROOT, Settings

INSTANCE_FILE = REPO_ROOT / "orchestration" / "instance" / "dagster.yaml"


def prepare_dagster_home(settings: Settings) -> Path:
    """Put the project's dagster.yaml into DAGSTER_HOME; gives that folder. Our file wins over an edited copy: settings are ours to make."""
    home = settings.state_dir / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    temporary = home / "dagster.yaml.new"
    temporary.write_bytes(INSTANCE_FILE.read_bytes())
    temporary.rename(home / "dagster.yaml")
    return home


def prepare_catalog(endpoints: Endpoints) -> None:
    """Bring the catalog's schema to the newest revision. Harmless when it is there already."""
    from assets.catalog.migrate import upgrade  # noqa: PLC0415  # Alembic takes half a second that `--help` must not pay

    upgrade(endpoints.database_url)


def prepare_rankings(settings: Settings) -> None:
    """Have dbt read its project, once for each state of the project's files."""
    from assets.rankings.dbt import prepare  # noqa: PLC0415  # see above

    prepare(settings.state_dir)


def end_stale_runs(settings: Settings, endpoints: Endpoints) -> list[str]:
    """Mark runs as failed whose processes were killed with an earlier supervisor; gives their ids. See `fail_stale_runs`."""
    from dagster import DagsterInstance  # noqa: PLC0415  # see above

    from orchestration.stale_runs import fail_stale_runs  # noqa: PLC0415

    environment = process_environment(settings, endpoints, base=os.environ, owner=owner_mark())
    with applied(environment), DagsterInstance.get() as instance:
        return fail_stale_runs(instance)


def prepare_all(settings: Settings, endpoints: Endpoints) -> None:
    """All of the above, in order."""
    prepare_dagster_home(settings)
    prepare_catalog(endpoints)
    prepare_rankings(settings)
