"""What a person gets wrong, or a machine lacks: one sentence that says what to do, an exit code, and no traceback."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.e2e.conftest import dyno

REFUSALS = {
    "unknown model of the matrix": (["matrix", "lama-3.1-8b", "--count"], "llama-3.1-8b"),
    "unknown model of the demo": (["demo", "--model", "dyno-44m"], "dyno-43m"),
    "negative bound": (["recommend", "--use-case", "chatbot", "--latency-p90-ms", "-5"], "latency"),
    "weights that sum to 0": (["recommend", "--use-case", "chatbot", "--weights", "accuracy=0,cost=0"], "weights"),
    "no server to bench": (["bench", "--url", "http://127.0.0.1:9", "--model", "m", "--requests", "2"], "127.0.0.1:9"),
}


@pytest.mark.parametrize(("arguments", "named"), REFUSALS.values(), ids=REFUSALS.keys())
def test_bad_input_is_refused_with_what_to_do(arguments: list[str], named: str, tmp_path: Path) -> None:
    """The message names what is wrong, or what would be right."""
    ended = dyno(*arguments, state_dir=tmp_path / "s")
    assert ended.returncode not in {0, 130}
    assert named in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    """A port that a person chose and that another process holds is refused before anything starts."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = dyno("up", state_dir=tmp_path / "s", DYNO_API_PORT=str(port))
    assert ended.returncode == 1
    assert str(port) in ended.stderr
    assert "DYNO_API_PORT" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_state_folder_is_named(tmp_path: Path) -> None:
    """Nothing is started when the state folder cannot be written."""
    folder = tmp_path / "s"
    folder.mkdir(mode=0o500)
    ended = dyno("demo", state_dir=folder)
    assert ended.returncode == 1
    assert str(folder) in ended.stderr
    assert "DYNO_STATE_DIR" in ended.stderr


def test_a_file_in_the_place_of_the_state_folder_is_named(tmp_path: Path) -> None:
    """The same for root, whom no permission stops."""
    (tmp_path / "s").write_text("")
    ended = dyno("demo", state_dir=tmp_path / "s")
    assert ended.returncode == 1
    assert "not a folder" in ended.stderr
    assert "Traceback" not in ended.stderr
