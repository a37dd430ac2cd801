"""The commands that the manifests give to containers work in this environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from k8s.manifests import read_files, title, workloads

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = Path(sys.executable).parent
CONTAINERS = {
    f"{title(workload.document)}/{container['name']}": container
    for workload in workloads(read_files(ROOT / "k8s" / "base"))
    for container in workload.containers()
}


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT), **variables}


@pytest.mark.services
def test_the_migration_job_makes_the_catalog(empty_postgres_url: str) -> None:
    command = CONTAINERS["Job/dyno-migrate/migrate"]["command"]
    for _ in range(2):  # the second one, as after a restart of the Job, finds nothing to do
        subprocess.run(command, env=environment(DYNO_DATABASE_URL=empty_postgres_url), cwd=ROOT, check=True, timeout=120)
    engine = create_engine(empty_postgres_url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM catalog.benchmark_results")).scalar_one() == 0
    engine.dispose()


@pytest.mark.parametrize("name", sorted(CONTAINERS))
def test_every_program_is_installed_and_knows_its_options(name: str) -> None:
    program, *arguments = CONTAINERS[name]["command"]
    assert shutil.which(program, path=environment()["PATH"]), f"{program} is not installed"
    if program in {"python", "cp"}:
        return
    subcommands = []
    for word in arguments:
        if word.startswith("-") or ":" in word:
            break
        subcommands.append(word)
    shown = subprocess.run(
        [program, *subcommands, "--help"], env=environment(), cwd=ROOT, check=True, capture_output=True, text=True, timeout=120
    ).stdout
    for option in (word for word in arguments if word.startswith("--")):
        assert option in shown, f"{program} has no option {option}"


def test_the_file_that_init_containers_copy_is_in_the_image() -> None:
    copied = {container["command"][1] for container in CONTAINERS.values() if container["command"][0] == "cp"}
    assert copied == {"/app/orchestration/instance/dagster.yaml"}
    assert (ROOT / "orchestration" / "instance" / "dagster.yaml").is_file()
