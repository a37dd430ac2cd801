"""A finished load point is on disk whole, or counts as not there; a full disk loses nothing that is finished."""

from __future__ import annotations

import errno
import gzip
import json
import os
from pathlib import Path

import pytest

from assets.benchmark.checkpoint import CheckpointError, CheckpointStore, CorruptCheckpointError
from tests.unit.benchmark.builders import measurement

REQUESTS = [{"index": 0, "ttft_ms": 2.0}, {"index": 1, "ttft_ms": 3.0}]


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    store = CheckpointStore(tmp_path / "demo-r0")
    with store.locked():
        return store


def test_what_is_saved_comes_back_with_its_evidence(store: CheckpointStore) -> None:
    saved = store.save(measurement(), REQUESTS)
    loaded = store.load(saved.config_id)
    assert loaded == saved
    evidence = gzip.decompress((store.directory / str(saved.artifact["requests"])).read_bytes())
    assert [json.loads(line) for line in evidence.splitlines()] == REQUESTS
    assert store.load("d" * 32) is None


@pytest.mark.parametrize("damage", ["torn", "empty", "changed", "other", "evidence", "no_evidence"])
def test_a_damaged_file_is_detected(store: CheckpointStore, damage: str) -> None:
    saved = store.save(measurement(), REQUESTS)
    path, evidence = store.directory / f"{saved.config_id}.json", store.directory / str(saved.artifact["requests"])
    content = path.read_bytes()
    config_id = saved.config_id
    match damage:
        case "torn":
            path.write_bytes(content[: len(content) // 2])
        case "empty":
            path.write_bytes(b"")
        case "changed":
            path.write_bytes(content.replace(b"400.0", b"900.0"))
        case "other":
            config_id = "e" * 32
            path.rename(store.directory / f"{config_id}.json")
        case "evidence":
            evidence.write_bytes(evidence.read_bytes()[:-1])
        case _:
            evidence.unlink()
    with pytest.raises(CorruptCheckpointError, match="will be measured again"):
        store.load(config_id)
    finished, damaged = store.finished([config_id])
    assert finished == {}
    assert len(damaged) == 1


def test_a_full_disk_is_a_clear_error_and_keeps_what_is_finished(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """fsync is where a full disk shows at the latest; the file that it was for must not appear."""
    first = store.save(measurement(), REQUESTS)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="the disk is full: free some space"):
        store.save(measurement("d" * 32), REQUESTS)
    with pytest.raises(CheckpointError, match="the disk is full"):
        store.save(measurement(), REQUESTS)
    assert store.load(first.config_id) == first
    assert store.load("d" * 32) is None
    assert not list(store.directory.glob("*.part"))


def test_a_file_in_the_folders_place_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    with (
        pytest.raises(CheckpointError, match="a file is where a folder should be"),
        CheckpointStore(tmp_path / "checkpoints" / "r0").locked(),
    ):
        pass


def test_two_workers_cannot_measure_the_same_batch(store: CheckpointStore) -> None:
    with store.locked(), pytest.raises(CheckpointError, match="another worker"), CheckpointStore(store.directory).locked():
        pass
    with store.locked():
        pass
