"""Work beside a measurement that must not take the processor from it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TypeVar

T = TypeVar("T")


def with_idle_priority(function: Callable[[Callable[[], bool]], T]) -> T:
    """Call `function` in a thread that runs only where no other work waits for a processor (Linux: sched(7), SCHED_IDLE).

    A load process that wakes up then need not wait for the end of our time slice, which is 3 ms. The function gets a callable that says
    whether it should stop, as it should when this thread is interrupted. Elsewhere than on Linux the thread is like any other.
    """
    interrupted = Event()
    with ThreadPoolExecutor(1, thread_name_prefix="idle", initializer=_make_idle) as pool:
        try:
            return pool.submit(function, interrupted.is_set).result()
        finally:
            interrupted.set()


def _make_idle() -> None:
    # a thread of a process without privileges could not go back, so it is one of its own
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
