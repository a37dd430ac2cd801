"""The life of an engine process: prepare, start, wait until it is ready, watch, and always stop."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import assets
from assets.benchmark.engines.environments import in_environment, process_environment
from assets.benchmark.engines.protocol import CrashedError, EngineDriver, EngineError, Launch, PortTakenError, StartTimeoutError
from assets.benchmark.guard import guarded
from assets.benchmark.storage.location import CREDENTIAL_PREFIXES

HEALTH_POLL_S = 0.05
HEALTH_TIMEOUT_S = 2.0
TERM_GRACE_S = 5.0
LOG_TAIL_BYTES = 65_536  # an engine of several processes writes many lines after the one that says why
LOG_TAIL_LINES = 12

_IMPORT_ROOT = Path(assets.__file__).resolve().parents[1]


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def check_port(host: str, port: int) -> None:
    """Raises PortTakenError when another process listens there: its answers must not be taken for the engine's."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTakenError(f"port {port} on {host} cannot be used ({error.strerror}): free it, or let Dyno choose one") from error


def import_environment() -> dict[str, str]:
    """This process's environment, with the project importable in a child wherever that one is started."""
    paths = [str(_IMPORT_ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


class EngineProcess:
    """One engine, as a context manager: on entry it is started and healthy, on exit it is gone.

    The process leads its own process group and dies with this one (see `assets.benchmark.guard`). Its output goes to `log_path`.
    `should_stop` is asked while waiting; `on_wait` is told the seconds waited so far.
    """

    def __init__(
        self,
        driver: EngineDriver,
        launch: Launch,
        log_path: Path,
        start_timeout_s: float,
        on_wait: Callable[[float], None] | None = None,
    ) -> None:
        self.driver = driver
        self.launch = launch
        self.log_path = log_path
        self.command = list(driver.command(launch))
        self.start_s: float | None = None
        self._start_timeout_s = start_timeout_s
        self._on_wait = on_wait
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        check_port(self.launch.host, self.launch.port)
        started = time.monotonic()
        with self.log_path.open("wb") as log:
            self._prepare(log)
            self._process = subprocess.Popen(
                guarded(self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # an engine has no business in the checkpoints
                env={name: value for name, value in self._environment().items() if not name.startswith(CREDENTIAL_PREFIXES)},
                start_new_session=True,
            )
        try:
            self._wait_until_healthy(started)
        except BaseException:
            self.stop()
            raise
        self.start_s = time.monotonic() - started
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def base_url(self) -> str:
        """Where the engine's HTTP API is."""
        return self.launch.base_url

    @property
    def pid(self) -> int | None:
        """The engine's process id. Raises RuntimeError before the start."""
        if self._process is None:
            raise RuntimeError("the engine has not been started")
        return self._process.pid

    def check_alive(self) -> None:
        """Raises the typed EngineError when the engine has ended by itself."""
        if self._process is not None and (exit_code := self._process.poll()) is not None:
            raise self._failure(exit_code)

    def stop(self) -> None:
        """SIGTERM to the whole group, SIGKILL to what is left after a grace period; returns when the engine is gone."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(TERM_GRACE_S)
        self._signal(signal.SIGKILL)  # in any case: the rest of the group may outlive its leader
        process.wait()

    def log_tail(self) -> str:
        """The last bytes of the engine's log."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
                return log.read().decode("utf-8", "replace")
        except OSError as error:
            return f"(no log: {error.strerror})"

    def _environment(self) -> dict[str, str]:
        variables = self.driver.variables(self.launch)
        if self.launch.environment is not None:
            return process_environment(self.launch.environment, variables)
        return {**import_environment(), **variables}

    def _prepare(self, log: BinaryIO) -> None:
        """Run what comes before the start, to its end. Raises the typed EngineError when that fails."""
        for command in self.driver.prepare_commands(self.launch):
            line = in_environment(self.driver.name, self.launch, command) if self.launch.environment is not None else list(command)
            try:
                ended = subprocess.run(
                    guarded(line),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment(),
                    timeout=self._start_timeout_s,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise StartTimeoutError(
                    f"{self.driver.name} was not prepared within {self._start_timeout_s:g} s: raise engine_start_timeout_s, or see "
                    f"{self.log_path}"
                ) from None
            if ended.returncode != 0:
                raise self._failure(ended.returncode)

    def _wait_until_healthy(self, started: float) -> None:
        while True:
            self.check_alive()
            if self._healthy():
                self.check_alive()
                return
            waited_s = time.monotonic() - started
            if waited_s > self._start_timeout_s:
                raise StartTimeoutError(
                    f"{self.driver.name} was not healthy within {self._start_timeout_s:g} s: raise engine_start_timeout_s, or see "
                    f"{self.log_path}\n{self._last_lines()}"
                )
            if self._on_wait is not None:
                self._on_wait(waited_s)
            time.sleep(HEALTH_POLL_S)

    def _healthy(self) -> bool:
        connection = http.client.HTTPConnection(self.launch.host, self.launch.port, timeout=HEALTH_TIMEOUT_S)
        try:
            connection.request("GET", self.driver.ready_path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _failure(self, exit_code: int) -> EngineError:
        known = self.driver.read_failure(self.log_tail(), exit_code) if self.start_s is None else None
        return known or CrashedError(
            f"{self.driver.name} ended by itself with exit code {exit_code}; its last words:\n{self._last_lines()}"
        )

    def _last_lines(self) -> str:
        return "\n".join(self.log_tail().splitlines()[-LOG_TAIL_LINES:])

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return  # all of them have ended
