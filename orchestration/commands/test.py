"""`./dyno test`: the tests, in a closed room. Leaves no process, and no file outside the project."""

from __future__ import annotations

import fnmatch
import os
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Annotated

import psutil
import typer

from orchestration import console
from orchestration.local.processes import end_processes, find_marked
from orchestration.settings import REPO_ROOT

TEST_RUN_VARIABLE = "DYNO_TEST_RUN"
ROOM = REPO_ROOT / ".dyno-test"
ENDING_TIMEOUT_S = 15
POLL_INTERVAL_S = 0.2
# Folders that programs write to whatever TMPDIR and HOME say, and how what our tools leave there is named.
SHARED_FOLDERS = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))  # noqa: S108  # looked at, never written
OUR_NAMES = ("dyno*", "dagster*", "dbt*", "PostgreSQL.*", ".s.PGSQL*", "valkey*", "pytest-of-*", "runtime-*", "playwright*", "uvicorn*")


class TestRoomError(Exception):
    """The tests left something behind; the message lists it."""

    __test__ = False


def test(
    context: typer.Context,
    fast: Annotated[bool, typer.Option("--fast", help="Leave out the tests that start an inference engine or a browser.")] = False,  # noqa: PT028
) -> None:
    """Run the project's tests: real databases, real processes, real engines. Takes up to 10 minutes on 2 cores.

    Everything that the tests write is under .dyno-test, removed after success. Fails also when a test leaves a process, or a file
    outside the project. Further arguments go to pytest.

    Examples:

      ./dyno test

      ./dyno test --fast

      ./dyno test tests/unit/matrix -k vram -x
    """
    run = uuid.uuid4().hex
    room = ROOM / run[:8]
    for folder in ("tmp", "home"):
        (room / folder).mkdir(parents=True)
    before = _shared_entries()
    command = [sys.executable, "-m", "pytest", "--basetemp", str(room / "t"), *(["-m", "not engine and not browser"] if fast else [])]
    # in a session of its own would keep Ctrl-C from pytest, which ends its fixtures on it
    code = subprocess.run([*command, *context.args], cwd=REPO_ROOT, env=_environment(room, run), check=False).returncode
    _check_processes(run)
    _check_files(before)
    if code != 0:
        console.note(f"what the tests wrote is kept in {room}")
        raise typer.Exit(code)
    shutil.rmtree(room)
    if not any(ROOM.iterdir()):
        ROOM.rmdir()


def _environment(room: Path, run: str) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DYNO_", "DAGSTER_", "XDG_"))}
    home = Path.home()
    # Found through the home folder, which the tests do not get.
    for name, place in (("PLAYWRIGHT_BROWSERS_PATH", home / ".cache" / "ms-playwright"), ("PYENV_ROOT", home / ".pyenv")):
        if name not in environment and place.is_dir():
            environment[name] = str(place)
    return environment | {
        "TMPDIR": str(room / "tmp"),
        "HOME": str(room / "home"),
        "PYTHONPATH": str(REPO_ROOT),
        "DO_NOT_TRACK": "1",
        TEST_RUN_VARIABLE: run,
    }


def _check_processes(run: str) -> None:
    """Guards and stopping servers get a moment."""
    deadline = time.monotonic() + ENDING_TIMEOUT_S
    while (left := find_marked(TEST_RUN_VARIABLE, run)) and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL_S)
    if left:
        words = [f"  {process.pid} {_command_line(process)}" for process in left]
        end_processes(left)
        raise TestRoomError("the tests left processes (ended now):\n" + "\n".join(words))


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return "?"


def _shared_entries() -> set[Path]:
    return {entry for folder in SHARED_FOLDERS if folder.is_dir() for entry in folder.iterdir()}


def _check_files(before: set[Path]) -> None:
    """Other programs write to these folders too: only what is named as our tools name it is certainly ours."""
    left = [entry for entry in _shared_entries() - before if any(fnmatch.fnmatch(entry.name, pattern) for pattern in OUR_NAMES)]
    mine = sorted(str(entry) for entry in left if entry.lstat().st_uid == os.geteuid())
    if mine:
        raise TestRoomError("the tests left files outside the project:\n  " + "\n  ".join(mine))
