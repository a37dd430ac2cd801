"""The product as a person uses it: commands in processes of their own, on one state folder for the whole session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestration.settings import REPO_ROOT

DEMO_TIMEOUT_S = 600
MODEL = "dyno-43m"


def dyno(*arguments: str, state_dir: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `./dyno` to its end."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "orchestration.cli", *arguments],
        cwd=REPO_ROOT,
        env={**os.environ, "PYTHONPATH": str(REPO_ROOT), "DYNO_STATE_DIR": str(state_dir), **environment},
        capture_output=True,
        text=True,
        timeout=DEMO_TIMEOUT_S,
        check=False,
    )


@dataclass(frozen=True)
class Demo:
    """What `./dyno demo --json` printed, and the state folder that it left."""

    state_dir: Path
    document: dict[str, Any]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The demo, once, on one model: two quantizations at five load levels, measured by a real engine."""
    state_dir = tmp_path_factory.mktemp("e2e") / "s"
    ended = dyno("demo", "--model", MODEL, "--json", state_dir=state_dir)
    assert ended.returncode == 0, ended.stderr
    return Demo(state_dir, json.loads(ended.stdout))
