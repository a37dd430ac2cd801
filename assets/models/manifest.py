"""SHA-256 manifests: written when files are made or fetched, checked when they are used."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from assets.models.errors import CorruptArtifactError

MANIFEST_NAME = "manifest.json"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file of an artifact."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """Files by name relative to the manifest's folder, and what `made_from` them (recipe, hub revision)."""

    files: Mapping[str, FileRecord]
    made_from: str


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def write_manifest(folder: Path, names: Iterable[str], made_from: str) -> Manifest:
    """Hash the named files of `folder` and write its manifest (atomically)."""
    files = {name: FileRecord(file_sha256(folder / name), (folder / name).stat().st_size) for name in sorted(names)}
    document = {"made_from": made_from, "files": {name: {"sha256": r.sha256, "size_bytes": r.size_bytes} for name, r in files.items()}}
    temporary = folder / f".{MANIFEST_NAME}.{os.getpid()}"
    temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    temporary.replace(folder / MANIFEST_NAME)
    return Manifest(files, made_from)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder; None where there is none.

    Raises:
        CorruptArtifactError: the manifest cannot be read.
    """
    path = folder / MANIFEST_NAME
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        files = {name: FileRecord(str(r["sha256"]), int(r["size_bytes"])) for name, r in document["files"].items()}
        return Manifest(files, str(document["made_from"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptArtifactError(f"{path} is damaged") from error


def verify(folder: Path, manifest: Manifest) -> None:
    """Check size and SHA-256 of every file of the manifest.

    Raises:
        CorruptArtifactError: names the first file that is missing or differs, and what to do.
    """
    for name, record in manifest.files.items():
        path = folder / name
        try:
            size_bytes = path.stat().st_size
        except FileNotFoundError:
            raise CorruptArtifactError(f"{path} is missing") from None
        if size_bytes != record.size_bytes:
            raise CorruptArtifactError(f"{path} is damaged ({size_bytes} bytes instead of {record.size_bytes})")
        if file_sha256(path) != record.sha256:
            raise CorruptArtifactError(f"{path} is damaged (its SHA-256 differs from the manifest)")
