"""Two workers with the same load point, in any order of their steps, killed anywhere: one measurement, on which everybody agrees."""

from __future__ import annotations

import gzip
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Condition, Thread
from typing import Literal, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import MemoryStore

from assets.benchmark.checkpoint import CheckpointStore, CorruptCheckpointError
from assets.benchmark.job import Measurement
from assets.benchmark.storage.local import LocalFolder
from assets.benchmark.storage.protocol import ObjectFolder, Stored, Version
from assets.benchmark.storage.remote import RemoteFolder
from tests.unit.benchmark.builders import measurement

T = TypeVar("T")
Before = Literal["nothing", "finished", "torn", "no evidence"]
CONFIG_ID = "c" * 32
LONGEST = 14  # steps of both workers together, with an object that is replaced


class KilledError(BaseException):
    """Here the worker is killed: nothing of it runs any more."""


class Turns:
    """Lets the workers do one step each time they are named; past the end, or where the named one has ended, whoever comes."""

    def __init__(self, order: list[int]) -> None:
        self._order = deque(order)
        self._ended: set[int] = set()
        self._changed = Condition()

    def step(self, worker: int, action: Callable[[], T]) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._is_on(worker))
            if self._order:
                self._order.popleft()
            try:
                return action()
            finally:
                self._changed.notify_all()

    def end(self, worker: int) -> None:
        with self._changed:
            self._ended.add(worker)
            self._changed.notify_all()

    def _is_on(self, worker: int) -> bool:
        while self._order and self._order[0] in self._ended:
            self._order.popleft()
        return not self._order or self._order[0] == worker


class TurnFolder:
    """A real folder, of which each operation waits for its worker's turn. After `lives` operations the worker is killed."""

    def __init__(self, folder: ObjectFolder, turns: Turns, worker: int, lives: int) -> None:
        self._folder, self._turns, self._worker, self._lives = folder, turns, worker, lives

    @property
    def location(self) -> str:
        return self._folder.location

    def get(self, name: str) -> Stored | None:
        return self._step(lambda: self._folder.get(name))

    def put(self, name: str, content: bytes) -> None:
        self._step(lambda: self._folder.put(name, content))

    def create(self, name: str, content: bytes) -> Version | None:
        return self._step(lambda: self._folder.create(name, content))

    def replace(self, name: str, content: bytes, version: Version) -> Version | None:
        return self._step(lambda: self._folder.replace(name, content, version))

    def delete(self, name: str) -> None:
        self._step(lambda: self._folder.delete(name))

    def held(self, should_stop: Callable[[], bool]) -> AbstractContextManager[Callable[[], bool]]:
        return self._folder.held(should_stop)

    def _step(self, action: Callable[[], T]) -> T:
        if self._lives == 0:
            raise KilledError
        self._lives -= 1
        return self._turns.step(self._worker, action)


@contextmanager
def fresh(kind: str) -> Iterator[ObjectFolder]:
    if kind == "object storage":
        yield RemoteFolder(MemoryStore(), "memory://")
        return
    with tempfile.TemporaryDirectory() as path:
        yield LocalFolder(Path(path))


def prepare(folder: ObjectFolder, before: Before) -> Measurement | None:
    """What a third worker left behind; returns what is finished of it."""
    if before == "nothing":
        return None
    left = CheckpointStore(folder).save(measurement(CONFIG_ID), [{"worker": "third"}])
    if before == "no evidence":
        folder.delete(str(left.artifact["requests"]))
    if before == "torn":
        folder.put(f"{CONFIG_ID}.json", b'{"format": 1, "sha')
    return left if before == "finished" else None


@pytest.mark.parametrize("kind", ["folder", "object storage"])
@given(
    order=st.lists(st.integers(0, 1), max_size=LONGEST),
    lives=st.tuples(st.integers(0, LONGEST), st.integers(0, LONGEST)),
    before=st.sampled_from(["nothing", "finished", "torn", "no evidence"]),
)
def test_in_any_interleaving_there_is_one_measurement_and_all_agree(
    kind: str, order: list[int], lives: tuple[int, int], before: Before
) -> None:
    """Whoever comes back from `save` names the measurement that every reader finds, with that measurement's evidence."""
    with fresh(kind) as folder:
        finished = prepare(folder, before)
        turns = Turns(order)
        own = [measurement(CONFIG_ID) for _ in lives]
        counted: dict[int, Measurement] = {}
        killed: set[int] = set()

        def work(worker: int) -> None:
            try:
                store = CheckpointStore(TurnFolder(folder, turns, worker, lives[worker]))
                counted[worker] = store.save(own[worker], [{"worker": worker}])
            except KilledError:
                killed.add(worker)
            finally:
                turns.end(worker)

        threads = [Thread(target=work, args=(worker,)) for worker in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(counted) | killed == {0, 1}  # nothing else happened to them

        try:
            there = CheckpointStore(folder).load(CONFIG_ID)
        except CorruptCheckpointError:
            there = None
        assert [told for told in counted.values() if told != there] == []
        if finished is not None:
            assert there == finished
        elif there is not None:
            [worker] = [worker for worker in range(2) if own[worker].measurement_id == there.measurement_id]
            evidence = folder.get(str(there.artifact["requests"]))
            assert evidence is not None
            assert gzip.decompress(evidence.content) == f'{{"worker":{worker}}}\n'.encode()
