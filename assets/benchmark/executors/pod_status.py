"""What a pod's status says of its worker and its engine: nothing yet, a warning, an end, or a failure of a known kind.

Pure: from the object that the API returns (as a dict, in the API's own field names) to a `Verdict`. Waiting reasons are the kubelet's
(pkg/kubelet/images/types.go, pkg/kubelet/kuberuntime), reasons of failed pods and of the condition DisruptionTarget are documented at
https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions and .../nodes/node-shutdown/.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

Json = Mapping[str, Any]
Remedy = Literal["elsewhere", "on_demand", "give_up"]

ENGINE, WORKER, WEIGHTS = "engine", "worker", "weights"
SIGTERM_EXIT_CODE, SIGKILL_EXIT_CODE = 143, 137
# An image that cannot be pulled once may be pulled the next time: a registry that limits its rate, a node without network for a moment.
IMAGE_PULL_PATIENCE = timedelta(minutes=5)
_MAY_PASS = frozenset({"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"})
_WAITING_KINDS: Mapping[str, str] = {
    **dict.fromkeys(("InvalidImageName", "ErrImageNeverPull", *_MAY_PASS), "image_pull"),
    **dict.fromkeys(("CreateContainerConfigError", "CreateContainerError", "RunContainerError"), "pod_config"),
}


@dataclass(frozen=True, slots=True)
class FailureKind:
    """A way in which a pod fails, what to do then, and whether it speaks against the engine or the hardware (for the circuit breaker)."""

    name: str
    remedy: Remedy
    counts: bool
    meaning: str


KINDS: Mapping[str, FailureKind] = {
    kind.name: kind
    for kind in (
        FailureKind("unschedulable", "on_demand", False, "no node with the GPUs was free, or can be had, in time"),
        FailureKind("preempted", "elsewhere", False, "the node was taken away: spot capacity reclaimed, a more important pod, maintenance"),
        FailureKind("evicted", "elsewhere", False, "the kubelet put the pod out because its node ran out of memory or disk"),
        FailureKind("vanished", "elsewhere", False, "the pod is gone and nobody said why: its node died, or somebody deleted it"),
        FailureKind("deadline", "give_up", True, "the pod lived longer than DYNO_K8S_DEADLINE_S allows"),
        FailureKind("image_pull", "elsewhere", True, "an image cannot be pulled"),
        FailureKind("pod_config", "give_up", False, "a container cannot be made: a Secret, a key or a volume is missing"),
        FailureKind("host_out_of_memory", "give_up", True, "a container used more host memory than its limit"),
        FailureKind("engine_crashed", "elsewhere", True, "the engine ended by itself"),
        FailureKind("weights", "give_up", False, "the model's weights could not be fetched"),
        FailureKind("worker_crashed", "elsewhere", True, "the worker ended without saying why"),
    )
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """How it stands. `failure` is a name in KINDS, None while all is well; `worker_exit_code` is that of a worker that ended by itself."""

    phase: str
    scheduled: bool
    worker_started: bool
    worker_exit_code: int | None = None
    failure: str | None = None
    detail: str = ""

    @property
    def over(self) -> bool:
        """Nothing more will come of this pod."""
        return self.failure is not None or self.worker_exit_code is not None


def judge(pod: Json, now: datetime, schedule_within: timedelta) -> Verdict:
    """What `pod` says at the instant `now`. It may take `schedule_within` from its creation until it has a node."""
    status: Json = pod.get("status") or {}
    containers = {container["name"]: container for container in _containers(status)}
    worker: Json = (containers.get(WORKER) or {}).get("state") or {}
    exit_code: int | None = (worker.get("terminated") or {}).get("exitCode")
    failure = _disruption(pod, status)
    if failure is None and exit_code is not None:
        failure = _worker_failure(worker["terminated"])
    elif failure is None:
        failure = _container_failure(containers, _age(pod, now)) or _pod_failure(pod, status, _age(pod, now) > schedule_within)
    return Verdict(
        phase=str(status.get("phase", "Pending")),
        scheduled=_scheduled(pod, status),
        worker_started="running" in worker or "terminated" in worker,
        worker_exit_code=exit_code if failure is None else None,
        failure=None if failure is None else failure[0],
        detail="" if failure is None else failure[1],
    )


def _worker_failure(ended: Json) -> tuple[str, str] | None:
    """A worker that did not end by itself has no exit code of its own."""
    if ended.get("reason") == "OOMKilled":
        return "host_out_of_memory", "the worker was OOMKilled: its memory limit is too small"
    if ended["exitCode"] in {SIGTERM_EXIT_CODE, SIGKILL_EXIT_CODE}:
        return "worker_crashed", f"the worker was ended by a signal (exit code {ended['exitCode']})"
    return None


def _pod_failure(pod: Json, status: Json, waited_enough: bool) -> tuple[str, str] | None:
    if status.get("phase") == "Failed":
        return "vanished", _sentence(status) or "the pod failed before its worker said anything"
    if waited_enough and not _scheduled(pod, status):
        return "unschedulable", str(_condition(status, "PodScheduled").get("message", "no node has taken it"))
    return None


def _scheduled(pod: Json, status: Json) -> bool:
    return bool((pod.get("spec") or {}).get("nodeName")) or _condition(status, "PodScheduled").get("status") == "True"


def _disruption(pod: Json, status: Json) -> tuple[str, str] | None:
    """Whether somebody took the pod's node or place away."""
    reason = str(status.get("reason") or "")
    if reason == "Evicted":
        return "evicted", _sentence(status)
    if reason == "DeadlineExceeded":
        return "deadline", _sentence(status)
    if reason in {"Preempting", "Shutdown", "NodeShutdown", "Terminated", "NodeLost", "NodeAffinity", "UnexpectedAdmissionError"}:
        return "preempted", _sentence(status)
    target = _condition(status, "DisruptionTarget")
    if target.get("status") == "True":
        return "preempted", f"{target.get('reason', 'DisruptionTarget')}: {target.get('message', '')}".rstrip(": ")
    if (pod.get("metadata") or {}).get("deletionTimestamp"):
        return "preempted", "the pod is being deleted"
    return None


def _container_failure(containers: Mapping[str, Json], age: timedelta) -> tuple[str, str] | None:
    for name, container in containers.items():
        state, last = container.get("state") or {}, container.get("lastState") or {}
        waiting = state.get("waiting") or {}
        reason = str(waiting.get("reason") or "")
        kind = _WAITING_KINDS.get(reason)
        if kind is not None and (reason not in _MAY_PASS or age > IMAGE_PULL_PATIENCE):
            return kind, f"{name}: {reason}: {waiting.get('message') or ''}"
        failure = _ended_failure(name, state.get("terminated") or last.get("terminated") or {})
        if failure is not None:
            return failure
    return None


def _ended_failure(name: str, ended: Json) -> tuple[str, str] | None:
    """Of a container beside the worker: the kubelet starts a sidecar again, but what was measured on it is lost."""
    if ended.get("reason") == "OOMKilled":
        return "host_out_of_memory", f"{name} was OOMKilled: it needs more host memory than its limit"
    if name == WEIGHTS and ended.get("exitCode"):
        return "weights", str(ended.get("message") or f"exit code {ended['exitCode']}")
    if name == ENGINE and ended:
        return "engine_crashed", f"the engine ended with exit code {ended.get('exitCode')} ({ended.get('reason', 'Error')})"
    return None


def _containers(status: Json) -> Iterator[Json]:
    yield from status.get("initContainerStatuses") or []
    yield from status.get("containerStatuses") or []


def _condition(status: Json, name: str) -> Json:
    return next((condition for condition in status.get("conditions") or [] if condition["type"] == name), {})


def _sentence(status: Json) -> str:
    return ": ".join(str(part) for part in (status.get("reason"), status.get("message")) if part)


def _age(pod: Json, now: datetime) -> timedelta:
    created = (pod.get("metadata") or {}).get("creationTimestamp")
    if created is None:
        return timedelta()
    return now - (created if isinstance(created, datetime) else datetime.fromisoformat(str(created)))
