"""Phase and conditions of a pod from its containers: getPhase in pkg/kubelet/kubelet_pods.go, and pkg/kubelet/status/generate.go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tests.kubernetes_api.objects import FAILED, SUCCEEDED, Object, named, restartable

PENDING: Final = "Pending"
RUNNING: Final = "Running"
Statuses = Sequence[Mapping[str, Any]]


def phase(pod: Mapping[str, Any], init: Statuses, main: Statuses, *, terminal: bool) -> str:
    """`terminal`: the pod has been ended, nothing will be restarted."""
    policy = pod["spec"]["restartPolicy"]
    pending = False
    running = waiting = stopped = succeeded = 0
    for container in pod["spec"].get("initContainers", []):
        status = _of(init, container)
        state = status["state"]
        before = status["lastState"].get("terminated")
        if restartable(container):
            started = "running" in state and status["started"]
            running += "running" in state
            waiting += "waiting" in state and before is None
            pending |= not started and "terminated" not in state and not (("waiting" in state) and before is not None)
            continue
        ended = state.get("terminated") or ("waiting" in state and before) or None
        if ended and ended["exitCode"] != 0 and policy == "Never":
            return FAILED
        pending |= ended is None
    for container in pod["spec"]["containers"]:
        status = _of(main, container)
        state = status["state"]
        ended = state.get("terminated") or ("waiting" in state and status["lastState"].get("terminated")) or None
        running += "running" in state
        stopped += ended is not None
        succeeded += ended is not None and ended["exitCode"] == 0
        waiting += "waiting" in state and ended is None
    has_run = any("waiting" not in _of(main, each)["state"] or _of(main, each)["lastState"] for each in pod["spec"]["containers"])
    if (pending and not has_run) or waiting:
        return PENDING
    if running or not stopped:
        return RUNNING if running else PENDING
    if stopped == succeeded and (policy != "Always" or terminal):
        return SUCCEEDED
    return FAILED if terminal or policy == "Never" else RUNNING


def conditions(pod: Mapping[str, Any], init: Statuses, main: Statuses, phase_now: str) -> list[Object]:
    """The conditions that the kubelet owns, without their times."""
    ready = _ready(pod, init, main, phase_now)
    return [
        {"type": "PodReadyToStartContainers", "status": "False" if phase_now in {SUCCEEDED, FAILED} else "True"},
        _initialized(pod, init, main, phase_now),
        {"type": "Ready", **ready},
        {"type": "ContainersReady", **ready},
        {"type": "PodScheduled", "status": "True"},
    ]


def has_started(status: Mapping[str, Any]) -> bool:
    """Whether the container has ever run."""
    return bool("waiting" not in status["state"] or status["lastState"])


def _initialized(pod: Mapping[str, Any], init: Statuses, main: Statuses, phase_now: str) -> Object:
    if phase_now == SUCCEEDED:
        return {"type": "Initialized", "status": "True", "reason": "PodCompleted"}
    incomplete = [each["name"] for each in pod["spec"].get("initContainers", []) if not _complete(each, _of(init, each))]
    if not incomplete or any(has_started(status) for status in main):
        return {"type": "Initialized", "status": "True"}
    message = f"containers with incomplete status: [{' '.join(incomplete)}]"
    return {"type": "Initialized", "status": "False", "reason": "ContainersNotInitialized", "message": message}


def _complete(container: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    return bool(status["started"] if restartable(container) else status["ready"])


def _ready(pod: Mapping[str, Any], init: Statuses, main: Statuses, phase_now: str) -> Object:
    if phase_now in {SUCCEEDED, FAILED}:
        return {"status": "False", "reason": "PodCompleted" if phase_now == SUCCEEDED else "PodFailed"}
    sidecars = [_of(init, each) for each in pod["spec"].get("initContainers", []) if restartable(each)]
    unready = [status["name"] for status in [*sidecars, *main] if not status["ready"]]
    if unready:
        return {"status": "False", "reason": "ContainersNotReady", "message": f"containers with unready status: [{' '.join(unready)}]"}
    return {"status": "True"}


def _of(statuses: Statuses, container: Mapping[str, Any]) -> Mapping[str, Any]:
    status = named(statuses, container["name"])
    if status is None:
        raise KeyError(container["name"])
    return status
