"""The lease of a folder in an object storage: one living worker at a time, and no dead one for ever."""

from __future__ import annotations

import json
import time

import pytest
from obstore.store import MemoryStore

from assets.benchmark.load.session import StoppedError
from assets.benchmark.storage.lease import LEASE_NAME, Lease
from assets.benchmark.storage.protocol import BusyError
from assets.benchmark.storage.remote import RemoteFolder
from tests.deadlines import eventually

LONG_S = 3600.0
SHORT_S = 0.3
RENEWED_S = 3.0  # longer than a busy machine keeps a thread waiting


@pytest.fixture
def folder() -> RemoteFolder:
    return RemoteFolder(MemoryStore(), "memory://batch")


def holder(folder: RemoteFolder) -> str:
    there = folder.get(LEASE_NAME)
    assert there is not None
    return str(json.loads(there.content)["holder"])


def abandoned(folder: RemoteFolder, expires_at_s: float) -> None:
    """The lease of a worker that was killed: nobody renews it."""
    document = {"holder": "dead", "host": "gone", "heartbeat_at_s": 0.0, "expires_at_s": expires_at_s}
    folder.put(LEASE_NAME, json.dumps(document).encode())


def test_a_worker_that_renews_its_lease_keeps_others_out(folder: RemoteFolder) -> None:
    """The second one waits until it sees a heartbeat, and says on which machine the first one is."""
    with (
        Lease(folder, lease_s=RENEWED_S) as first,
        pytest.raises(BusyError, match=r"another worker, on .* is measuring into memory://batch"),
    ):
        Lease(folder, lease_s=LONG_S).__enter__()
    assert not first.lost()


def test_a_lease_that_was_given_back_is_free_at_once(folder: RemoteFolder) -> None:
    with Lease(folder, lease_s=LONG_S):
        before = holder(folder)
    with Lease(folder, lease_s=LONG_S) as second:
        assert holder(folder) != before
        assert not second.lost()


def test_an_expired_lease_is_taken_over(folder: RemoteFolder) -> None:
    abandoned(folder, expires_at_s=time.time() - 1)
    with Lease(folder, lease_s=LONG_S):
        assert holder(folder) != "dead"


def test_a_lease_of_a_clock_that_is_hours_ahead_is_taken_over_all_the_same(folder: RemoteFolder) -> None:
    """By its own clock the dead worker's lease has hours to go; that nobody renews it is seen here."""
    abandoned(folder, expires_at_s=time.time() + LONG_S)
    with Lease(folder, lease_s=SHORT_S):
        assert holder(folder) != "dead"


@pytest.mark.parametrize("content", [b"", b"{}", b'{"holder": "x"', b'["holder"]'])
def test_a_damaged_lease_is_nobodys(folder: RemoteFolder, content: bytes) -> None:
    folder.put(LEASE_NAME, content)
    with Lease(folder, lease_s=LONG_S):
        assert holder(folder)


def test_the_worker_that_was_thought_dead_learns_that_it_lost(folder: RemoteFolder) -> None:
    """And leaves the lease of its successor alone when it ends."""
    with Lease(folder, lease_s=SHORT_S) as zombie:
        abandoned(folder, expires_at_s=time.time() + LONG_S)  # somebody else's now
        eventually(zombie.lost, "the first worker knows that it lost")
    assert holder(folder) == "dead"


def test_a_worker_that_is_stopped_while_it_waits_stops(folder: RemoteFolder) -> None:
    abandoned(folder, expires_at_s=time.time() + LONG_S)
    with pytest.raises(StoppedError):
        Lease(folder, should_stop=lambda: True, lease_s=LONG_S).__enter__()
    assert holder(folder) == "dead"
