"""What a worker has finished, on disk: one file a load point, whole or not there.

`<config_id>.json` holds the measurement with a SHA-256 over it; `<config_id>.requests.jsonl.gz` the evidence, one line a request, whose
SHA-256 is in the measurement. The evidence is written first. Each file is written beside its place, synced, and renamed into it, so a kill
or a full disk leaves the old state. A file that does not agree with its checksum counts as not there: the load point is measured again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import gzip
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from assets.benchmark.job import Measurement, Summary, TelemetrySample

FORMAT = 1
LOCK_NAME = ".lock"
_SUMMARIES = ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms")


class CheckpointError(Exception):
    """A checkpoint cannot be written or read; the message says why and what to do."""


class CorruptCheckpointError(CheckpointError):
    """A checkpoint file is torn, or was changed."""


class CheckpointStore:
    """The checkpoint folder of one batch, protocol and repeat."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, prove that it can be written, and keep every other worker out. Raises CheckpointError."""
        with clear_errors(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CheckpointError(f"another worker is measuring into {self.directory}: wait for it, or stop it") from None
            self._write_atomically(self.directory / ".probe", b"\0" * 4096)
            (self.directory / ".probe").unlink()
            yield
        finally:
            os.close(lock)

    def save(self, measurement: Measurement, requests: Iterable[Mapping[str, object]]) -> Measurement:
        """Store one finished load point and its requests; returns the measurement with its `artifact` filled in. Raises CheckpointError."""
        lines = "".join(json.dumps(request, separators=(",", ":"), allow_nan=False) + "\n" for request in requests)
        evidence = gzip.compress(lines.encode("utf-8"), mtime=0)
        name = f"{measurement.config_id}.requests.jsonl.gz"
        self._write_atomically(self.directory / name, evidence)
        artifact = {"requests": name, "sha256": hashlib.sha256(evidence).hexdigest(), "bytes": len(evidence)}
        complete = dataclasses.replace(measurement, artifact=artifact)
        document = dataclasses.asdict(complete)
        envelope = {"format": FORMAT, "sha256": _digest(document), "measurement": document}
        self._write_atomically(
            self.directory / f"{measurement.config_id}.json", json.dumps(envelope, indent=1, allow_nan=False).encode("utf-8")
        )
        return complete

    def load(self, config_id: str) -> Measurement | None:
        """The finished load point; None when there is none. Raises CorruptCheckpointError, and CheckpointError when it cannot be read."""
        path = self.directory / f"{config_id}.json"
        content = _content(path)
        if content is None:
            return None
        try:
            return self._checked(json.loads(content), config_id)
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptCheckpointError(f"{path} is damaged and its load point will be measured again: {error}") from error

    def finished(self, config_ids: Iterable[str]) -> tuple[dict[str, Measurement], list[str]]:
        """What is finished of `config_ids`, by id; and a sentence about each damaged file."""
        measurements: dict[str, Measurement] = {}
        damaged: list[str] = []
        for config_id in config_ids:
            try:
                measurement = self.load(config_id)
            except CorruptCheckpointError as error:
                damaged.append(str(error))
                continue
            if measurement is not None:
                measurements[config_id] = measurement
        return measurements, damaged

    def _checked(self, envelope: Mapping[str, Any], config_id: str) -> Measurement:
        """The measurement in an envelope whose checksums, and those of its evidence, agree. Raises ValueError, KeyError or TypeError."""
        document = envelope["measurement"]
        if envelope["format"] != FORMAT or envelope["sha256"] != _digest(document):
            raise ValueError("the checksum does not agree")
        measurement = measurement_of(document)
        if measurement.config_id != config_id:
            raise ValueError("it is of another configuration")
        evidence = self.directory / str(measurement.artifact["requests"])
        content = _content(evidence)
        if content is None:
            raise ValueError(f"{evidence.name} is not there")
        if hashlib.sha256(content).hexdigest() != measurement.artifact["sha256"]:
            raise ValueError(f"{evidence.name} does not agree with its checksum")
        return measurement

    def _write_atomically(self, path: Path, content: bytes) -> None:
        temporary = path.with_name(f"{path.name}.part")
        with clear_errors(path):
            try:
                with temporary.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            except OSError:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
                raise
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def measurement_of(document: Mapping[str, Any]) -> Measurement:
    """A measurement from its JSON form. Raises ValueError, KeyError or TypeError where it is none."""
    fields = dict(document)
    for name in _SUMMARIES:
        fields[name] = Summary(**fields[name])
    fields["intervals"] = {name: (float(low), float(high)) for name, (low, high) in fields["intervals"].items()}
    fields["quality_flags"] = tuple(fields["quality_flags"])
    fields["telemetry"] = tuple(TelemetrySample(**sample) for sample in fields["telemetry"])
    return Measurement(**fields)


def _digest(document: object) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


def _content(path: Path) -> bytes | None:
    """A file's bytes; None where there is no such file. Raises CheckpointError."""
    with clear_errors(path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


@contextlib.contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors about `path` into sentences. Raises CheckpointError."""
    try:
        yield
    except OSError as error:
        advice = {
            errno.ENOSPC: "the disk is full: free some space and start again; what is finished is kept",
            errno.EDQUOT: "the disk quota is used up: free some space and start again; what is finished is kept",
            errno.EROFS: "the file system is read-only: set DYNO_STATE_DIR to a folder that can be written",
            errno.EACCES: "this user may not write there: change the folder's permissions, or set DYNO_STATE_DIR",
            errno.EPERM: "this user may not write there: change the folder's permissions, or set DYNO_STATE_DIR",
            errno.ENOTDIR: "a file is where a folder should be: remove it, or set DYNO_STATE_DIR",
            errno.EEXIST: "a file is where a folder should be: remove it, or set DYNO_STATE_DIR",
        }.get(error.errno or 0, error.strerror or str(error))
        raise CheckpointError(f"cannot use {path}: {advice}") from error
