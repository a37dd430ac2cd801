"""Checkpoints in a folder of this machine.

Each file is written beside its place, synced, and renamed into it, so a kill or a full disk leaves the old state. Writers take turns by a
lock file; another one keeps a second worker out for as long as the first one lives. Both are the kernel's: they end with their process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from assets.benchmark.storage.protocol import BusyError, CheckpointError, Stored, Version

LOCK_NAME = ".lock"
WRITES_NAME = ".writes"
PROBE_NAME = ".probe"
PROBE_BYTES = 4096


class LocalFolder:
    """An ObjectFolder of files. A file's version is the SHA-256 of what is in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def location(self) -> str:
        """The folder's path."""
        return str(self.directory)

    def get(self, name: str) -> Stored | None:
        """See ObjectFolder.get."""
        path = self.directory / name
        with clear_errors(path):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                return None
        return Stored(content, _version(content))

    def put(self, name: str, content: bytes) -> None:
        """See ObjectFolder.put."""
        with self._writing():
            self._write_atomically(self.directory / name, content)

    def create(self, name: str, content: bytes) -> Version | None:
        """See ObjectFolder.create."""
        with self._writing():
            if self.get(name) is not None:
                return None
            self._write_atomically(self.directory / name, content)
        return _version(content)

    def replace(self, name: str, content: bytes, version: Version) -> Version | None:
        """See ObjectFolder.replace."""
        with self._writing():
            there = self.get(name)
            if there is None or there.version != version:
                return None
            self._write_atomically(self.directory / name, content)
        return _version(content)

    def delete(self, name: str) -> None:
        """See ObjectFolder.delete."""
        with clear_errors(self.directory / name):
            (self.directory / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def held(self, should_stop: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
        """See ObjectFolder.held. Makes the folder. The kernel's lock cannot be taken over, and nothing is waited for."""
        with clear_errors(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
        with self._locked(LOCK_NAME, fcntl.LOCK_EX | fcntl.LOCK_NB):
            self.put(PROBE_NAME, b"\0" * PROBE_BYTES)
            self.delete(PROBE_NAME)
            yield lambda: False

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return self._locked(WRITES_NAME, fcntl.LOCK_EX)

    @contextlib.contextmanager
    def _locked(self, name: str, operation: int) -> Iterator[None]:
        with clear_errors(self.directory):
            lock = os.open(self.directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                with clear_errors(self.directory):
                    fcntl.flock(lock, operation)
            except CheckpointError as error:
                if isinstance(error.__cause__, BlockingIOError):
                    raise BusyError(f"another worker is measuring into {self.directory}: wait for it, or stop it") from None
                raise
            yield
        finally:
            os.close(lock)

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


def _version(content: bytes) -> Version:
    return Version(hashlib.sha256(content).hexdigest())


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
