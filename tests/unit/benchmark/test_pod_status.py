"""What a pod's status means: each way to fail has its name, and a pod that is merely slow has none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from assets.benchmark.executors.pod_status import KINDS, judge

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
WITHIN = timedelta(minutes=15)
Json = dict[str, Any]


def container(name: str, state: Json, last: Json | None = None, restarts: int = 0) -> Json:
    return {"name": name, "state": state, "lastState": last or {}, "restartCount": restarts, "ready": False, "image": "i", "imageID": ""}


def terminated(exit_code: int, reason: str = "Error", **more: Any) -> Json:
    return {"terminated": {"exitCode": exit_code, "reason": reason, **more}}


def waiting(reason: str, message: str = "") -> Json:
    return {"waiting": {"reason": reason, "message": message}}


RUNNING: Json = {"running": {"startedAt": "2026-11-21T11:50:00Z"}}
DONE = terminated(0, "Completed")


def pod(
    phase: str = "Running",
    *,
    engine: Json = RUNNING,
    engine_last: Json | None = None,
    worker: Json = RUNNING,
    weights: Json = DONE,
    minutes: float = 5,
    node: str | None = "node-1",
    conditions: list[Json] | None = None,
    deleted: bool = False,
    **status: Any,
) -> Json:
    metadata = {"name": "p", "creationTimestamp": (NOW - timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")}
    if deleted:
        metadata["deletionTimestamp"] = "2026-11-21T12:00:00Z"
    return {
        "metadata": metadata,
        "spec": {"nodeName": node} if node else {},
        "status": {
            "phase": phase,
            "conditions": conditions or [{"type": "PodScheduled", "status": "True" if node else "False"}],
            "initContainerStatuses": [container("weights", weights), container("engine", engine, engine_last)],
            "containerStatuses": [container("worker", worker)],
            **status,
        },
    }


def unscheduled(minutes: float) -> Json:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
    }
    found = pod("Pending", node=None, minutes=minutes, conditions=[condition])
    found["status"] |= {"initContainerStatuses": None, "containerStatuses": None}
    return found


@pytest.mark.parametrize(
    ("status", "failure", "words"),
    [
        (unscheduled(16), "unschedulable", "Insufficient nvidia.com/gpu"),
        (pod("Pending", worker=waiting("PodInitializing"), engine=waiting("ErrImagePull", "429"), minutes=6), "image_pull", "429"),
        (pod("Pending", worker=waiting("PodInitializing"), engine=waiting("ImagePullBackOff"), minutes=6), "image_pull", "engine"),
        (pod("Pending", worker=waiting("InvalidImageName", "x y"), minutes=0.1), "image_pull", "x y"),
        (pod("Pending", worker=waiting("CreateContainerConfigError", 'secret "s" not found')), "pod_config", 'secret "s" not found'),
        (pod("Pending", weights=terminated(1, message="no such repository"), worker=waiting("PodInitializing")), "weights", "repository"),
        (pod(engine=waiting("CrashLoopBackOff"), engine_last=terminated(1), worker=waiting("PodInitializing")), "engine_crashed", "code 1"),
        (pod(engine_last=terminated(139)), "engine_crashed", "139"),
        (pod(engine_last=terminated(137, "OOMKilled")), "host_out_of_memory", "engine was OOMKilled"),
        (pod("Failed", worker=terminated(137, "OOMKilled")), "host_out_of_memory", "worker was OOMKilled"),
        (pod("Failed", worker=terminated(137)), "worker_crashed", "137"),
        (pod("Failed", reason="Evicted", message="The node was low on resource: memory."), "evicted", "low on resource"),
        (pod("Failed", reason="Evicted", containerStatuses=None, initContainerStatuses=None), "evicted", "Evicted"),
        (pod("Failed", reason="DeadlineExceeded", message="Pod was active too long"), "deadline", "too long"),
        (pod("Failed", reason="Terminated", message="Pod was terminated in response to imminent node shutdown."), "preempted", "shutdown"),
        (pod("Failed", reason="Preempting", worker=terminated(143)), "preempted", "Preempting"),
        (
            pod(
                conditions=[{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "message": "Taint manager"}]
            ),
            "preempted",
            "DeletionByTaintManager",
        ),
        (pod(deleted=True), "preempted", "deleted"),
        (pod("Failed", containerStatuses=None, initContainerStatuses=None), "vanished", "before its worker"),
    ],
)
def test_each_way_to_fail_has_its_name(status: Json, failure: str, words: str) -> None:
    verdict = judge(status, NOW, WITHIN)
    assert (verdict.failure, verdict.over) == (failure, True)
    assert words in verdict.detail
    assert failure in KINDS


@pytest.mark.parametrize(
    "status",
    [
        unscheduled(14),
        pod("Pending", worker=waiting("PodInitializing"), engine=waiting("ImagePullBackOff"), minutes=4),
        pod("Pending", worker=waiting("PodInitializing"), engine=waiting("ContainerCreating"), minutes=60),
        pod("Pending", worker=waiting("PodInitializing"), weights=RUNNING),
        pod(),
        {"metadata": {"name": "just created"}, "spec": {}},
    ],
)
def test_what_only_takes_its_time_has_not_failed(status: Json) -> None:
    verdict = judge(status, NOW, WITHIN)
    assert (verdict.failure, verdict.over) == (None, False)


@pytest.mark.parametrize(("phase", "exit_code"), [("Succeeded", 0), ("Failed", 69), ("Failed", 75)])
def test_a_worker_that_ended_by_itself_says_in_its_exit_code_how(phase: str, exit_code: int) -> None:
    """Also while the engine, which is ended after the worker, has ended with whatever code."""
    verdict = judge(pod(phase, worker=terminated(exit_code), engine=terminated(143)), NOW, WITHIN)
    assert (verdict.worker_exit_code, verdict.failure, verdict.over) == (exit_code, None, True)


def test_a_stop_because_of_an_interruption_is_a_preemption_whatever_the_worker_says() -> None:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "message": "node shutdown"}
    assert judge(pod("Failed", worker=terminated(75), conditions=[condition]), NOW, WITHIN).failure == "preempted"
