"""What the state folder says about who uses it: locks that the kernel drops when a process ends, and the list of services.

`owner.lock`      held by the one process that runs the services: `./dyno up`, or a command that started them for itself
`users.lock`      held, shared, by every other command that uses those services
`services.json`   names, process ids, addresses; readable by all
`endpoints.json`  URLs with passwords; readable by the owner of the folder only
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from orchestration.local.environment import Endpoints
from orchestration.local.processes import owner_alive

POLL_INTERVAL_S = 0.1
Mode = Literal["up", "temporary"]


class StateInUseError(Exception):
    """Another process uses this state folder; the message says which, and what to do."""


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """One service as services.json tells it. `pid` is None while it does not run and for external servers."""

    name: str
    status: Literal["starting", "ready", "restarting", "failed", "external"]
    pid: int | None
    port: int | None
    url: str | None
    log: str | None
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """What services.json holds."""

    mode: Mode
    command: str
    owner: str
    started_at: str
    services: tuple[ServiceRecord, ...] = field(default=())

    @property
    def pid(self) -> int:
        """Process id of the supervisor, or of the command that runs the services for itself."""
        return int(self.owner.partition(":")[0])

    def service(self, name: str) -> ServiceRecord | None:
        """The service of that name, None when it is not part of this instance."""
        return next((service for service in self.services if service.name == name), None)


def write_private(path: Path, text: str) -> None:
    """Replace a file as a whole, readable by its owner only."""
    _replace(path, text, 0o600)


def _replace(path: Path, text: str, mode: int) -> None:
    temporary = path.with_name(f"{path.name}.new-{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
        file.write(text)
    temporary.rename(path)


def write_record(state_dir: Path, record: InstanceRecord, endpoints: Endpoints) -> None:
    """Tell other commands what runs."""
    write_private(state_dir / "endpoints.json", json.dumps(asdict(endpoints)))
    _replace(state_dir / "services.json", json.dumps(asdict(record), indent=2), 0o644)


def remove_record(state_dir: Path) -> None:
    """Nothing runs any more."""
    (state_dir / "services.json").unlink(missing_ok=True)
    (state_dir / "endpoints.json").unlink(missing_ok=True)


def read_record(state_dir: Path) -> InstanceRecord | None:
    """What runs now; None when nothing does, also when a killed process left its record."""
    document = _read(state_dir / "services.json")
    if document is None:
        return None
    document["services"] = tuple(ServiceRecord(**service) for service in document["services"])
    record = InstanceRecord(**document)
    return record if owner_alive(record.owner) else None


def read_endpoints(state_dir: Path) -> Endpoints | None:
    """The URLs of what runs, None when there are none."""
    document = _read(state_dir / "endpoints.json")
    return None if document is None else Endpoints(**document)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return document if isinstance(document, dict) else None


def _try_lock(path: Path, operation: int) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def try_own(state_dir: Path) -> Iterator[bool]:
    """Hold the state folder for the block; gives False when another process holds it."""
    descriptor = _try_lock(state_dir / "owner.lock", fcntl.LOCK_EX)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def own(state_dir: Path) -> Iterator[None]:
    """Hold the state folder for the block.

    Raises:
        StateInUseError: another process holds it.
    """
    with try_own(state_dir) as owned:
        if not owned:
            raise StateInUseError(describe_owner(state_dir))
        yield


def describe_owner(state_dir: Path) -> str:
    """A sentence on who holds the state folder, with what to do."""
    record = read_record(state_dir)
    if record is None:
        return f"another command is starting or stopping on the state folder {state_dir}: try again in a moment"
    if record.mode == "up":
        return f"Dyno is already up on the state folder {state_dir} (process {record.pid}): see ./dyno status, or stop it with ./dyno down"
    return (
        f"`./dyno {record.command}` (process {record.pid}) uses the state folder {state_dir}: "
        "wait for it to end, or set DYNO_STATE_DIR to another folder"
    )


@contextmanager
def share(state_dir: Path) -> Iterator[bool]:
    """Hold off the end of another command's services for the block; gives False when they are already ending."""
    descriptor = _try_lock(state_dir / "users.lock", fcntl.LOCK_SH)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def when_unused(state_dir: Path) -> Iterator[None]:
    """Enter the block once no other command uses the services, and let none begin to."""
    while (descriptor := _try_lock(state_dir / "users.lock", fcntl.LOCK_EX)) is None:
        time.sleep(POLL_INTERVAL_S)
    try:
        yield
    finally:
        os.close(descriptor)
