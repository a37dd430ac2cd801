"""One container of a pod over its restarts: its status, its process, its logs."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from tests.kubernetes_api.logs import ContainerLog
from tests.kubernetes_api.objects import Object, now, restartable
from tests.kubernetes_api.processes import ContainerProcess

Role = Literal["init", "sidecar", "main"]

START_ERROR_EXIT_CODE: Final = 128  # containerd's, when the command cannot be executed; it gives the epoch as the start
EPOCH: Final = "1970-01-01T00:00:00Z"
# What the kubelet says of a container of an ended pod that it never saw end: TerminatePod in pkg/kubelet/status/status_manager.go.
UNKNOWN_EXIT_CODE: Final = 137
UNKNOWN_REASON: Final = "ContainerStatusUnknown"
UNKNOWN_MESSAGE: Final = "The container could not be located when the pod was terminated"
TERMINATION_MESSAGE_BYTES: Final = 4096
FALLBACK_LOG_LINES: Final = 80
FALLBACK_LOG_BYTES: Final = 2048


class Container:
    """`exited` is done when the present instance has ended and its status says so."""

    def __init__(self, spec: Object, *, init: bool, waiting_reason: str, log_folder: Path) -> None:
        self.spec = spec
        self.name: str = spec["name"]
        self.role: Role = "main" if not init else "sidecar" if restartable(spec) else "init"
        self.state: Object = {"waiting": {"reason": waiting_reason}}
        self.last_state: Object = {}
        self.restart_count = 0
        self.ready = False
        self.started = False
        self.oom_killed = False
        self.process: ContainerProcess | None = None
        self.exited: asyncio.Future[int] | None = None
        self.log: ContainerLog | None = None
        self.previous_log: ContainerLog | None = None
        self._container_id = ""
        self._log_folder = log_folder
        self._instances = 0

    @property
    def runs(self) -> bool:
        """Whether a process runs."""
        return "running" in self.state

    def status(self) -> Object:
        """As containerStatuses has it."""
        return {
            "name": self.name,
            "state": self.state,
            "lastState": self.last_state,
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restart_count,
            "image": self.spec["image"],
            "imageID": f"fake://{self.spec['image']}" if self._container_id else "",
            **({"containerID": self._container_id} if self._container_id else {}),
        }

    def wait(self, reason: str, message: str | None = None) -> None:
        """Nothing runs, for this reason."""
        if "terminated" in self.state:
            self.last_state = self.state
        self.state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        self.ready = self.started = False

    async def start(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        """Start an instance."""
        self._new_instance()
        if self.log is None:
            raise RuntimeError("no log")
        self.process = await ContainerProcess.start(command, environment, folder, self._container_id, self.log)
        self.exited = asyncio.get_running_loop().create_future()
        self.oom_killed = False
        self.state = {"running": {"startedAt": now()}}
        self.started = "startupProbe" not in self.spec
        self.ready = self.started and "readinessProbe" not in self.spec and self.role != "init"

    def fail_to_start(self, message: str) -> None:
        """The runtime cannot execute the command: an instance that ended before it began."""
        self._new_instance()
        if self.log is not None:
            self.log.finish()
        self._terminate(START_ERROR_EXIT_CODE, "StartError", EPOCH, message)

    def ended(self, exit_code: int, message: str | None) -> None:
        """The process has ended."""
        reason = "OOMKilled" if self.oom_killed else "Completed" if exit_code == 0 else "Error"
        started = self.state["running"]["startedAt"]
        self._terminate(exit_code, reason, started, message)
        self.ready = self.role == "init" and exit_code == 0
        if self.exited is not None:
            self.exited.set_result(exit_code)

    def lost(self) -> None:
        """The pod has ended before this container began."""
        self.state = {
            "terminated": {
                "exitCode": UNKNOWN_EXIT_CODE,
                "reason": UNKNOWN_REASON,
                "message": UNKNOWN_MESSAGE,
                "startedAt": None,
                "finishedAt": None,
            }
        }
        self.ready = self.started = False

    def signal(self, number: signal.Signals) -> None:
        """To the process, when one runs."""
        if self.process is not None and self.runs:
            self.process.signal(number)

    def _new_instance(self) -> None:
        if "terminated" in self.state:
            self.last_state = self.state
        if self._instances:
            self.restart_count += 1
            self.previous_log = self.log
        self.log = ContainerLog(self._log_folder / self.name / f"{self._instances}.log")
        self._instances += 1
        self._container_id = f"fake://{secrets.token_hex(32)}"

    def _terminate(self, exit_code: int, reason: str, started: str, message: str | None) -> None:
        self.state = {
            "terminated": {
                "exitCode": exit_code,
                "reason": reason,
                **({"message": message} if message else {}),
                "startedAt": started,
                "finishedAt": now(),
                "containerID": self._container_id,
            }
        }
        self.ready = self.started = False


def termination_message(container: Container, path: Path, exit_code: int) -> str | None:
    """What the container left at its terminationMessagePath, or the end of its log where it asks for that."""
    text = path.read_bytes()[:TERMINATION_MESSAGE_BYTES].decode("utf-8", "replace") if path.exists() else ""
    if not text and exit_code != 0 and container.spec["terminationMessagePolicy"] == "FallbackToLogsOnError" and container.log:
        text = container.log.tail(FALLBACK_LOG_LINES, FALLBACK_LOG_BYTES)
    return text or None
