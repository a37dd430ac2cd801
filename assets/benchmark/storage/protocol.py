"""What a checkpoint folder can do, wherever it is: whole objects, some put on a condition, and one worker at a time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol


class CheckpointError(Exception):
    """A checkpoint cannot be written or read; the message says why and what to do. `retryable` says whether waiting can help."""

    retryable = False


class BusyError(CheckpointError):
    """Another worker measures into the same folder."""

    retryable = True


class UnreachableError(CheckpointError):
    """The object storage does not answer, or says that it cannot at the moment."""

    retryable = True


@dataclass(frozen=True, slots=True)
class Version:
    """One content that an object has had. Stores tell by its ETag (S3) or by a generation (GCS)."""

    e_tag: str | None
    generation: str | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as it was read."""

    content: bytes
    version: Version


class ObjectFolder(Protocol):
    """A flat folder of small objects. Each is there whole or not at all. Every method raises CheckpointError."""

    @property
    def location(self) -> str:
        """Where it is, for people: a path or a URL, without secrets."""
        ...

    def get(self, name: str) -> Stored | None:
        """The object; None where there is none."""
        ...

    def put(self, name: str, content: bytes) -> None:
        """Write the object, whatever was there."""
        ...

    def create(self, name: str, content: bytes) -> Version | None:
        """Write the object if there is none; None when there is one, whoever wrote it.

        That may have been this very call: where an answer is lost on its way, the library asks again.
        """
        ...

    def replace(self, name: str, content: bytes, version: Version) -> Version | None:
        """Write the object if it is still of `version`; None when it is not, for which the same holds as for `create`."""
        ...

    def delete(self, name: str) -> None:
        """Remove the object; nothing happens where there is none."""
        ...

    def held(self, should_stop: Callable[[], bool]) -> AbstractContextManager[Callable[[], bool]]:
        """Prove that the folder can be written and keep other workers out of it.

        The callable says whether another worker has taken over all the same. Raises BusyError, and StoppedError when `should_stop` says
        so while this waits.
        """
        ...
