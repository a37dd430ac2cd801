"""One worker at a time where there is no kernel to ask: a lease object that its holder renews, and that others take over when it expires.

A lease saves work. That a load point is there once does not hang on it: a worker that was thought dead and goes on finds its lease gone, or
at the latest another worker's measurement where it would put its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from threading import Event, Thread
from typing import Protocol

from assets.benchmark.load.session import StoppedError
from assets.benchmark.storage.protocol import BusyError, CheckpointError, Stored, Version

LEASE_NAME = ".lease"
# The retry of a pod that was killed waits this long at the most, and a heartbeat may be lost twice.
LEASE_S = 30.0
RENEWALS_A_LEASE = 3
POLL_S = 1.0
RELEASE_WAIT_S = 5.0


class ConditionalWrites(Protocol):
    """What a lease needs of its folder. See ObjectFolder."""

    @property
    def location(self) -> str: ...

    def get(self, name: str) -> Stored | None: ...

    def create(self, name: str, content: bytes) -> Version | None: ...

    def replace(self, name: str, content: bytes, version: Version) -> Version | None: ...


@dataclass(frozen=True, slots=True)
class LeaseDocument:
    """The lease object. Instants are seconds of the holder's clock since 1970; a lease that was given back has expired in 1970."""

    holder: str
    host: str
    heartbeat_at_s: float
    expires_at_s: float


class Lease:
    """One worker's claim to a folder, as a context manager: on entry it is held, on exit it is given back."""

    def __init__(self, folder: ConditionalWrites, should_stop: Callable[[], bool] = lambda: False, lease_s: float = LEASE_S) -> None:
        self._folder = folder
        self._should_stop = should_stop
        self._lease_s = lease_s
        self._holder = uuid.uuid4().hex
        self._version: Version | None = None
        self._lost = Event()
        self._done = Event()
        self._thread = Thread(target=self._keep, name="lease", daemon=True)

    def lost(self) -> bool:
        """Whether another worker has taken over."""
        return self._lost.is_set()

    def __enter__(self) -> Lease:
        self._version = self._acquired()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(RELEASE_WAIT_S)
        if self._version is not None and not self.lost():
            # it would expire by itself
            with contextlib.suppress(CheckpointError):
                self._folder.replace(LEASE_NAME, self._document(expires_at_s=0.0), self._version)

    def _acquired(self) -> Version:
        """Wait until the lease is ours. Raises BusyError when its holder turns out to be alive, and StoppedError."""
        first: Version | None = None
        first_at = time.monotonic()
        while True:
            created = self._folder.create(LEASE_NAME, self._document())
            if created is not None:
                return created
            there = self._folder.get(LEASE_NAME)
            if there is None:  # removed in between, or a conflict that the storage tells before there is an object
                self._pause()
                continue
            other = _read(there.content)
            if other is not None and other.holder == self._holder:
                return there.version
            # by the holder's clock; or, however wrong that one is, by ours while nothing changed
            unchanged = first in {None, there.version}
            if other is None or other.expires_at_s <= time.time() or (unchanged and time.monotonic() - first_at > self._lease_s):
                taken = self._folder.replace(LEASE_NAME, self._document(), there.version)
                if taken is not None:
                    return taken
            elif not unchanged:
                raise BusyError(f"another worker, on {other.host}, is measuring into {self._folder.location}: wait for it, or stop it")
            first = first or there.version
            self._pause()

    def _pause(self) -> None:
        if self._should_stop():
            raise StoppedError
        time.sleep(min(POLL_S, self._lease_s / RENEWALS_A_LEASE))

    def _keep(self) -> None:
        while self._version is not None and not self._done.wait(self._lease_s / RENEWALS_A_LEASE):
            # an object storage that does not answer now may answer the next time
            with contextlib.suppress(CheckpointError):
                renewed = self._folder.replace(LEASE_NAME, self._document(), self._version)
                self._version = renewed or self._after_lost_answer()
        if self._version is None:
            self._lost.set()

    def _after_lost_answer(self) -> Version | None:
        """The lease's version where it is still ours, renewed by a request whose answer did not arrive; None where it is another's."""
        there = self._folder.get(LEASE_NAME)
        other = _read(there.content) if there is not None else None
        return there.version if there is not None and other is not None and other.holder == self._holder else None

    def _document(self, expires_at_s: float | None = None) -> bytes:
        now = time.time()
        expires = now + self._lease_s if expires_at_s is None else expires_at_s
        document = LeaseDocument(self._holder, f"{socket.gethostname()} (process {os.getpid()})", now, expires)
        return json.dumps(asdict(document)).encode()


@contextlib.contextmanager
def leased(folder: ConditionalWrites, should_stop: Callable[[], bool], lease_s: float) -> Iterator[Callable[[], bool]]:
    """Hold the folder's lease; gives what says whether it is lost."""
    with Lease(folder, should_stop, lease_s) as lease:
        yield lease.lost


def _read(content: bytes) -> LeaseDocument | None:
    """A lease object; None where it is none, which anybody may take."""
    try:
        document = LeaseDocument(**json.loads(content))
        return document if document.expires_at_s + document.heartbeat_at_s >= 0 else None
    except (ValueError, TypeError):
        return None
