"""Damaged files are noticed before they are measured, whatever the damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from assets.models.errors import ArtifactWriteError, CorruptArtifactError
from assets.models.folders import make_folder, writing
from assets.models.manifest import MANIFEST_NAME, read_manifest, verify, write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.gguf").write_bytes(b"weights")
    write_manifest(tmp_path, ["model.gguf"], "a recipe")
    return tmp_path


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda path: path.write_bytes(b"weighty"), "SHA-256 differs"),
        (lambda path: path.write_bytes(b"weight"), "6 bytes instead of 7"),
        (lambda path: path.unlink(), "is missing"),
    ],
)
def test_a_file_that_differs_is_refused_with_what_to_do(folder: Path, damage: Callable[[Path], object], problem: str) -> None:
    """Same length, cut off, gone."""
    manifest = read_manifest(folder)
    assert manifest is not None
    verify(folder, manifest)
    damage(folder / "model.gguf")
    with pytest.raises(CorruptArtifactError, match=f"{problem}.*materialize the `model` asset again"):
        verify(folder, manifest)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"files": {}}', '{"made_from": "x", "files": {"a": {}}}', '{"made_from": "x", "files": 1}']
)
def test_a_manifest_that_cannot_be_read_is_damage(folder: Path, text: str) -> None:
    """Not a reason to believe the files."""
    (folder / MANIFEST_NAME).write_text(text)
    with pytest.raises(CorruptArtifactError, match=r"manifest\.json is damaged"):
        read_manifest(folder)


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    """What fails half-way leaves nothing that looks finished, and what a killed process left is swept away."""
    target = tmp_path / "q8_0"
    (tmp_path / ".q8_0.building").mkdir()
    (tmp_path / ".q8_0.building" / "half").touch()

    def fail(building: Path) -> None:
        assert list(building.iterdir()) == []
        (building / "model.gguf").touch()
        raise OSError(28, "No space left on device")

    with pytest.raises(ArtifactWriteError, match="the disk is full"), writing(tmp_path):
        make_folder(target, fail)
    assert list(tmp_path.iterdir()) == []
    make_folder(target, lambda building: (building / "model.gguf").touch())
    assert [path.name for path in target.iterdir()] == ["model.gguf"]
