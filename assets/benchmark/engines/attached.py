"""An engine that somebody else started: another container of the pod, or an external server. Nothing is launched, nothing is stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from assets.benchmark.engines.external import External
from assets.benchmark.engines.protocol import CrashedError, EngineDriver, Launch, StartTimeoutError
from assets.benchmark.load.endpoint import Endpoint, EndpointError
from assets.benchmark.load.probe import NoAnswerError, get

READY_POLL_S = 0.2
READY_TIMEOUT_S = 5.0
CHECKS = 3
SERVER_ERROR = 500


class RunningEngine(Protocol):
    """What is measured: an engine that answers. `command` is empty and `pid` None where it was not started here."""

    driver: EngineDriver
    launch: Launch
    command: list[str]
    start_s: float | None

    @property
    def base_url(self) -> str:
        """Where the engine's HTTP API is."""
        ...

    @property
    def pid(self) -> int | None:
        """The engine's process, or that of its leader."""
        ...

    def check_alive(self) -> None:
        """Raises the typed EngineError when the engine has ended."""
        ...


class AttachedEngine:
    """An engine at a URL, as a context manager: on entry it is ready, and on exit it is left as it was."""

    def __init__(
        self,
        driver: EngineDriver,
        launch: Launch,
        base_url: str,
        start_timeout_s: float,
        on_wait: Callable[[float], None] | None = None,
    ) -> None:
        self.driver = driver
        self.launch = launch
        self.base_url = base_url
        self.command: list[str] = []
        self.pid: int | None = None
        self.start_s: float | None = None
        self._start_timeout_s = start_timeout_s
        self._on_wait = on_wait

    def __enter__(self) -> Self:
        """Raises StartTimeoutError when it does not become ready in time."""
        started = time.monotonic()
        while (reason := self._unready()) is not None:
            waited_s = time.monotonic() - started
            if waited_s > self._start_timeout_s:
                raise StartTimeoutError(
                    f"{self.driver.name} at {self.base_url} was not ready within {self._start_timeout_s:g} s ({reason}): is it up, and is "
                    "this its address?"
                )
            if self._on_wait is not None:
                self._on_wait(waited_s)
            time.sleep(READY_POLL_S)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def check_alive(self) -> None:
        """Raises CrashedError when it does not answer, asked a few times."""
        reason: str | None = None
        for _ in range(CHECKS):
            reason = self._unready()
            if reason is None:
                return
            time.sleep(READY_POLL_S)
        raise CrashedError(f"{self.driver.name} at {self.base_url} does not answer any more: {reason}")

    def _unready(self) -> str | None:
        try:
            get(Endpoint.parse(self.base_url), self.driver.ready_path, READY_TIMEOUT_S)
        except EndpointError as error:
            return str(error)
        except NoAnswerError as error:
            # of a server that nobody knows: that it refuses the question, or has no such page, shows that it is up
            refused = isinstance(self.driver, External) and error.status is not None and error.status < SERVER_ERROR
            return None if refused else str(error)
        return None
