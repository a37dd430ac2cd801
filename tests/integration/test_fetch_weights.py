"""The weights of a pod come from the hub into the cache volume: whole, once, and with a reason where they cannot."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from assets.models.fetch_weights import COMPLETE_NAME
from tests.hub_standin import SMALL, HubStandin, safetensors_files

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def hub() -> Iterator[HubStandin]:
    with HubStandin() as standin:
        yield standin


def fetch(hub: HubStandin, repository: str, into: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "assets.models.fetch_weights", repository, f"--into={into}", *options],
        cwd=ROOT, env={"PATH": "/usr/bin:/bin", "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(into.parent / "hf")},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_weights_are_fetched_once_and_other_formats_are_left(hub: HubStandin, tmp_path: Path) -> None:
    files = safetensors_files(SMALL)
    hub.publish("acme/small", {**files, "pytorch_model.bin": b"the same again", "original/params.json": b"{}"})
    into = tmp_path / "models" / "small" / "fp16" / "main"
    ended = fetch(hub, "acme/small", into)
    assert ended.returncode == 0, ended.stderr
    wanted = {name for name in files if name.endswith((".safetensors", ".json", ".txt", ".model", ".jinja"))}
    present = {str(path.relative_to(into)) for path in into.rglob("*") if path.is_file()}
    assert wanted <= present
    assert present - wanted <= {COMPLETE_NAME, ".lock"}
    asked = len(hub.requests)
    assert "already" in fetch(hub, "acme/small", into).stderr
    assert len(hub.requests) == asked


def test_what_arrives_damaged_is_not_complete_and_is_fetched_again(hub: HubStandin, tmp_path: Path) -> None:
    hub.publish("acme/small", safetensors_files(SMALL))
    into = tmp_path / "w"
    with hub.damaging():
        ended = fetch(hub, "acme/small", into)
    assert ended.returncode == 1
    assert "arrived damaged" in ended.stderr
    assert not (into / COMPLETE_NAME).exists()
    assert fetch(hub, "acme/small", into).returncode == 0


@pytest.mark.parametrize(
    ("publish", "words"),
    [({}, "acme/none"), ({"files": {"README.md": b"x"}}, "no safetensors weights"), ({"gated": "closed"}, "acme/none")],
    ids=["missing", "no weights", "gated"],
)
def test_what_cannot_be_had_says_so_in_one_line(hub: HubStandin, tmp_path: Path, publish: dict[str, object], words: str) -> None:
    if publish:
        hub.publish("acme/none", publish.get("files", safetensors_files(SMALL)), gated=publish.get("gated", False))  # type: ignore[arg-type]
    ended = fetch(hub, "acme/none", tmp_path / "w")
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert words in line
