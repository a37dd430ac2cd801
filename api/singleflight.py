"""Work that several threads want at once is done by one of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Calls with the same key that overlap share one execution, its result or its error. Nothing is kept afterwards."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._running: dict[Hashable, Future[T]] = {}

    def do(self, key: Hashable, work: Callable[[], T]) -> T:
        """The result of `work`, run by the first of the overlapping callers. Raises what `work` raises, to each of them."""
        with self._lock:
            running = self._running.get(key)
            mine: Future[T] = Future()
            if running is None:
                self._running[key] = mine
        if running is not None:
            return running.result()
        try:
            result = work()
        except BaseException as error:
            mine.set_exception(error)
            raise
        else:
            mine.set_result(result)
            return result
        finally:
            with self._lock:
                del self._running[key]
