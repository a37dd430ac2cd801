"""The command line as a person meets it: overview, help, and errors without a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.cli import COMMANDS, explain
from orchestration.local.ports import PortTakenError
from orchestration.settings import REPO_ROOT


def dyno(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "orchestration.cli", *arguments],
        env={**os.environ, "PYTHONPATH": str(REPO_ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_overview_names_every_command() -> None:
    result = dyno("--help")
    assert result.returncode == 0
    assert all(name in result.stdout for name in COMMANDS)


def test_the_overview_imports_nothing_heavy() -> None:
    """`--help` answers at once because no command's module is loaded."""
    code = (
        "import sys, orchestration.cli as c; c.build_app(['--help']); "
        "print(sorted({'dagster', 'sqlalchemy', 'pydantic', 'pandas', 'psutil', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=REPO_ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["up", "down", "status", "test"])
def test_each_commands_help_has_examples(command: str) -> None:
    result = dyno(command, "--help")
    assert result.returncode == 0
    assert f"./dyno {command}" in result.stdout
    assert "Examples:" in result.stdout


def test_wrong_usage_ends_with_2() -> None:
    result = dyno("upp")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_a_bad_setting_is_one_line_and_a_traceback_only_when_asked_for(tmp_path: Path) -> None:
    bad = {"DYNO_STATE_DIR": str(tmp_path), "DYNO_API_PORT": "x"}
    result = dyno("status", **bad)
    assert result.returncode == 1
    assert result.stderr.startswith("error: DYNO_API_PORT: ")
    assert "Traceback" not in result.stderr
    assert "Traceback" in dyno("status", **bad, DYNO_DEBUG="1").stderr


def test_status_of_nothing_is_one_json_document(tmp_path: Path) -> None:
    result = dyno("status", "--json", DYNO_STATE_DIR=str(tmp_path / "none"))
    assert result.returncode == 3
    assert json.loads(result.stdout) == {"running": False, "state_dir": str(tmp_path / "none"), "services": []}
    assert not (tmp_path / "none").exists()


def test_down_with_nothing_up_is_no_error(tmp_path: Path) -> None:
    assert dyno("down", DYNO_STATE_DIR=str(tmp_path)).returncode == 0
    assert dyno("down", DYNO_STATE_DIR=str(tmp_path / "none")).returncode == 0


def test_a_full_disk_in_the_middle_of_a_command_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNO_STATE_DIR", str(tmp_path))
    assert "free some space" in explain(OSError(28, "No space left on device"))


def test_our_errors_speak_for_themselves_and_others_say_how_to_see_more() -> None:
    assert explain(PortTakenError("port 1 is taken")) == "port 1 is taken"
    assert "DYNO_DEBUG=1" in explain(KeyError("x"))
