"""A closed loop: a fixed number of streams, each of which sends its next request the moment that its last one has ended."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from assets.benchmark.load.client import Endpoint, Exchange, Slot

STOP_POLL_S = 0.05

T = TypeVar("T")


class StoppedError(Exception):
    """The load point was asked to stop before its end; what it has so far does not count."""


async def run_closed_loop(
    endpoint: Endpoint,
    requests: Sequence[bytes],
    concurrency: int,
    timeout_s: float,
    on_done: Callable[[Exchange], None] | None = None,
) -> list[Exchange]:
    """Send all `requests` with `concurrency` of them in flight; returns an exchange for each, in the order of `requests`.

    Connections are opened before the first request. `on_done` is called after each request, between two sends: keep it short.
    """
    slots = [Slot(endpoint) for _ in range(min(concurrency, len(requests)))]
    exchanges: list[Exchange | None] = [None] * len(requests)
    remaining = iter(range(len(requests)))

    async def stream(slot: Slot) -> None:
        for index in remaining:
            exchange = await slot.perform(index, requests[index], timeout_s)
            exchanges[index] = exchange
            if on_done is not None:
                on_done(exchange)

    try:
        # a server that refuses connections shows in each request's outcome
        await asyncio.gather(*(slot.connect() for slot in slots), return_exceptions=True)
        async with _quiet_garbage_collector(), asyncio.TaskGroup() as group:
            for slot in slots:
                group.create_task(stream(slot))
    finally:
        for slot in slots:
            slot.close()
    return [exchange for exchange in exchanges if exchange is not None]


@asynccontextmanager
async def _quiet_garbage_collector() -> AsyncIterator[None]:
    """A collection in mid-run would show up as latency: what exists is frozen and collection waits until after."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()


def run_until_stopped(work: Callable[[], Awaitable[T]], stop: Callable[[], bool]) -> T:
    """Run `work` on an event loop of its own (uvloop where it is there); raises StoppedError soon after `stop()` turns true."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_watched(work, stop))


def loop_name() -> str:
    """Which event loop `run_until_stopped` takes: `uvloop` or `asyncio`."""
    return "asyncio" if _loop_factory() is None else "uvloop"


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop  # noqa: PLC0415  # there is no uvloop on Windows

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _watched(work: Callable[[], Awaitable[T]], stop: Callable[[], bool]) -> T:
    task = asyncio.ensure_future(work())
    try:
        while not task.done():
            if stop():
                raise StoppedError
            await asyncio.wait((task,), timeout=STOP_POLL_S)
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
