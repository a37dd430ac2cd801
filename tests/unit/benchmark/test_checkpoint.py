"""A finished load point is there whole, or counts as not there; a full disk loses nothing that is finished."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from assets.benchmark.checkpoint import CheckpointStore, CorruptCheckpointError, PartialLoadPoint
from assets.benchmark.storage.local import LocalFolder
from assets.benchmark.storage.protocol import BusyError, CheckpointError, ObjectFolder
from assets.benchmark.storage.remote import RemoteFolder
from tests.unit.benchmark.builders import measurement

REQUESTS = [{"index": 0, "ttft_ms": 2.0}, {"index": 1, "ttft_ms": 3.0}]


@pytest.fixture(params=["folder", "object storage"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectFolder:
    """Both kinds of folder, each proved writable."""
    folder: ObjectFolder = LocalFolder(tmp_path / "demo-r0") if request.param == "folder" else RemoteFolder(MemoryStore(), "memory://")
    with folder.held(lambda: False):
        return folder


@pytest.fixture
def store(folder: ObjectFolder) -> CheckpointStore:
    return CheckpointStore(folder)


@pytest.fixture
def local(tmp_path: Path) -> LocalFolder:
    folder = LocalFolder(tmp_path / "demo-r0")
    with folder.held(lambda: False):
        return folder


def content(folder: ObjectFolder, name: object) -> bytes:
    there = folder.get(str(name))
    assert there is not None
    return there.content


def test_what_is_saved_comes_back_with_its_evidence(store: CheckpointStore, folder: ObjectFolder) -> None:
    saved = store.save(measurement(), REQUESTS)
    loaded = store.load(saved.config_id)
    assert loaded == saved
    evidence = gzip.decompress(content(folder, saved.artifact["requests"]))
    assert [json.loads(line) for line in evidence.splitlines()] == REQUESTS
    assert store.load("d" * 32) is None


@pytest.mark.parametrize("damage", ["torn", "empty", "changed", "other", "evidence", "no_evidence"])
def test_a_damaged_object_is_detected_and_replaced_by_the_next_measurement(
    store: CheckpointStore, folder: ObjectFolder, damage: str
) -> None:
    saved = store.save(measurement(), REQUESTS)
    name, evidence = f"{saved.config_id}.json", str(saved.artifact["requests"])
    whole = content(folder, name)
    config_id = saved.config_id
    match damage:
        case "torn":
            folder.put(name, whole[: len(whole) // 2])
        case "empty":
            folder.put(name, b"")
        case "changed":
            folder.put(name, whole.replace(b"400.0", b"900.0"))
        case "other":
            config_id = "e" * 32
            folder.put(f"{config_id}.json", whole)
        case "evidence":
            folder.put(evidence, content(folder, evidence)[:-1])
        case _:
            folder.delete(evidence)
    with pytest.raises(CorruptCheckpointError, match="will be measured again"):
        store.load(config_id)
    finished, damaged = store.finished([config_id])
    assert finished == {}
    assert len(damaged) == 1

    again = store.save(measurement(config_id), [*REQUESTS, {"index": 2, "ttft_ms": 4.0}])
    assert again.measurement_id != saved.measurement_id
    assert store.finished([config_id]) == ({config_id: again}, [])


def test_the_second_of_two_measurements_is_discarded_with_its_evidence(store: CheckpointStore, folder: ObjectFolder) -> None:
    """A worker that was thought dead and its retry: the one that is first counts, and nothing of it is overwritten."""
    first = store.save(measurement(), REQUESTS)
    late = measurement()
    assert store.save(late, [{"index": 0, "ttft_ms": 9.0}]) == first
    assert store.load(first.config_id) == first
    assert gzip.decompress(content(folder, first.artifact["requests"])).startswith(b'{"index":0,"ttft_ms":2.0}')


def test_a_load_point_that_was_stopped_is_told_of_and_never_counts(store: CheckpointStore, folder: ObjectFolder) -> None:
    point = measurement()
    partial = PartialLoadPoint(point.config_id, point.partition_key, "demo", 0, 7, 20, "stopped", "2026-11-20T12:00:00+00:00")
    store.mark_partial(partial)
    assert store.partial(point.config_id) == partial
    assert store.finished([point.config_id]) == ({}, [])
    store.save(point, REQUESTS)
    assert folder.get(f"{point.config_id}.partial.json") is None
    store.mark_partial(partial)  # by a worker that does not know yet that it lost
    assert store.partial(point.config_id) is None


def test_what_an_earlier_version_wrote_is_still_read(store: CheckpointStore, folder: ObjectFolder) -> None:
    """Its evidence had no digest in its name. A batch that it began is finished, not begun anew."""
    saved = store.save(measurement(), REQUESTS)
    old_name, new_name = f"{saved.config_id}.requests.jsonl.gz", str(saved.artifact["requests"])
    folder.put(old_name, content(folder, new_name))
    folder.delete(new_name)
    envelope = json.loads(content(folder, f"{saved.config_id}.json"))
    envelope["measurement"]["artifact"]["requests"] = old_name
    canonical = json.dumps(envelope["measurement"], sort_keys=True, separators=(",", ":"))
    envelope["sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
    folder.put(f"{saved.config_id}.json", json.dumps(envelope).encode())
    loaded = store.load(saved.config_id)
    assert loaded is not None
    assert loaded.measurement_id == saved.measurement_id


def test_a_full_disk_is_a_clear_error_and_keeps_what_is_finished(local: LocalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """fsync is where a full disk shows at the latest; the file that it was for must not appear."""
    store = CheckpointStore(local)
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
    assert not list(local.directory.glob("*.part"))


def test_a_file_in_the_folders_place_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    with (
        pytest.raises(CheckpointError, match="a file is where a folder should be"),
        CheckpointStore(LocalFolder(tmp_path / "checkpoints" / "r0")).locked(),
    ):
        pass


def test_two_workers_cannot_measure_into_the_same_folder(local: LocalFolder) -> None:
    store = CheckpointStore(local)
    with store.locked(), pytest.raises(BusyError, match="another worker"), CheckpointStore(LocalFolder(local.directory)).locked():
        pass
    with store.locked():
        pass
