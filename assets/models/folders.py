"""Where a model's files lie, and how a folder of them is made: whole or not at all, by one process at a time."""

from __future__ import annotations

import errno
import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from assets.models.errors import ArtifactWriteError


def model_dir(state_dir: Path, model_id: str) -> Path:
    """Folder of one model's artifacts: `<state_dir>/models/<model_id>`."""
    return state_dir / "models" / model_id


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn an operating system error under `folder` into a sentence for a person.

    Raises:
        ArtifactWriteError: disk full, read-only file system, no permission, or a file in a folder's place.
    """
    try:
        yield
    except OSError as error:
        # NumPy's short write has no errno: "5 requested and 0 written"
        if error.errno in {None, errno.ENOSPC, errno.EDQUOT}:
            advice = "the disk is full: free some space, or set DYNO_STATE_DIR to a folder on a larger disk"
        else:
            advice = f"{error.strerror}: set DYNO_STATE_DIR to a folder that you can write"
        raise ArtifactWriteError(f"cannot write the model's files in {folder}: {advice}") from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; others wait. The lock goes away with the process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_folder(target: Path, fill: Callable[[Path], None]) -> None:
    """Make `target` by filling a temporary folder beside it and renaming it. Call it while the parent is locked.

    What a killed process left behind is removed first, and so is an older `target`.
    """
    building = target.with_name(f".{target.name}.building")
    for leftover in (building, target):
        if leftover.exists():
            shutil.rmtree(leftover)
    building.mkdir(parents=True)
    try:
        fill(building)
        building.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
