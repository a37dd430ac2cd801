"""The folder that a location names."""

from __future__ import annotations

from pathlib import Path

from assets.benchmark.storage.local import LocalFolder
from assets.benchmark.storage.location import parse_location
from assets.benchmark.storage.protocol import CheckpointError, ObjectFolder
from assets.benchmark.storage.remote import open_bucket


def open_folder(location: str | Path) -> ObjectFolder:
    """The folder; nothing is made and nothing connects yet. Raises CheckpointError."""
    try:
        parsed = parse_location(str(location))
    except ValueError as error:
        raise CheckpointError(f"cannot use this checkpoint location: {error}") from error
    return LocalFolder(parsed) if isinstance(parsed, Path) else open_bucket(parsed)
