"""Pods and what the tests of this folder ask of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import kubernetes.client
import kubernetes_validate
from kubernetes.client import ApiClient

from tests.deadlines import eventually
from tests.kubernetes_api.cluster import NAMESPACE, FakeCluster
from tests.kubernetes_api.spec import ClusterSpec, ImageSpec

SHELL: Final = "busybox:1.36"
IMAGES: Final = (ImageSpec("busybox"), ImageSpec("slow", pull_s=60))
SPEC: Final = ClusterSpec(images=IMAGES)
# Says so when it gets SIGTERM, and goes. `wait` is what lets a shell see the signal at once.
POLITE: Final = "trap 'echo bye; exit 0' TERM; echo hello; sleep 600 & wait"
# Cannot be told.
STUBBORN: Final = "trap '' TERM; echo hello; while true; do sleep 1; done"

Pod: TypeAlias = kubernetes.client.V1Pod


def container(script: str, name: str = "main", **fields: Any) -> dict[str, Any]:
    """A container that runs a shell script."""
    return {"name": name, "image": SHELL, "command": ["sh", "-c", script], **fields}


def pod(name: str, *containers: Mapping[str, Any], labels: Mapping[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """A pod that is not restarted."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **({"labels": dict(labels)} if labels else {})},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 5, "containers": list(containers), **spec},
    }


def create(cluster: FakeCluster, body: Mapping[str, Any]) -> Pod:
    """Create it in the namespace default."""
    return cluster.core().create_namespaced_pod(NAMESPACE, dict(body))


def read(cluster: FakeCluster, name: str) -> Pod:
    """The pod as it is."""
    return cluster.core().read_namespaced_pod(name, NAMESPACE)


def when(cluster: FakeCluster, name: str, condition: Callable[[Pod], object], what: str) -> Pod:
    """The pod, once the condition holds."""

    def look() -> Pod | None:
        found = read(cluster, name)
        return found if condition(found) else None

    try:
        found = eventually(look, what, timeout_s=30)
    except AssertionError as error:
        raise AssertionError(f"{error}: pod {name} is {read(cluster, name).status}, {events(cluster, name)}") from error
    assert found is not None
    return found


def in_phase(cluster: FakeCluster, name: str, *phases: str) -> Pod:
    """The pod, once it is in one of the phases."""
    return when(cluster, name, lambda found: found.status.phase in phases, " or ".join(phases))


def running(cluster: FakeCluster, name: str) -> Pod:
    """The pod, once it runs and has said hello."""
    in_phase(cluster, name, "Running")
    eventually(lambda: "hello" in log(cluster, name), f"{name} says hello")
    return read(cluster, name)


def gone(cluster: FakeCluster, name: str) -> None:
    """Wait until there is no such pod."""

    def look() -> bool:
        found = cluster.core().list_namespaced_pod(NAMESPACE, field_selector=f"metadata.name={name}")
        return not found.items

    eventually(look, f"pod {name} is gone", timeout_s=30)


def log(cluster: FakeCluster, name: str, **options: Any) -> str:
    """A pod's log."""
    # The client itself would give str(bytes): https://github.com/kubernetes-client/python/issues/2596
    answer = cluster.core().read_namespaced_pod_log(name, NAMESPACE, _preload_content=False, **options)
    text: str = answer.data.decode()
    return text


def terminated(found: Pod, name: str = "main") -> kubernetes.client.V1ContainerStateTerminated:
    """How a container ended."""
    [status] = [each for each in all_statuses(found) if each.name == name]
    assert status.state.terminated is not None, status
    return status.state.terminated


def all_statuses(found: Pod) -> Sequence[kubernetes.client.V1ContainerStatus]:
    """Of init containers and containers."""
    return [*(found.status.init_container_statuses or []), *(found.status.container_statuses or [])]


def condition(found: Pod, kind: str) -> kubernetes.client.V1PodCondition | None:
    """The condition of a type."""
    return next((each for each in found.status.conditions or [] if each.type == kind), None)


def events(cluster: FakeCluster, name: str) -> list[tuple[str, str]]:
    """(reason, message) of every event about the pod."""
    found = cluster.core().list_namespaced_event(NAMESPACE, field_selector=f"involvedObject.name={name}").items
    return [(event.reason, event.message) for event in found]


def raw(cluster: FakeCluster, path: str) -> dict[str, Any]:
    """What the server sends, as JSON."""
    client: ApiClient = cluster.core().api_client
    answer = client.call_api(path, "GET", auth_settings=["BearerToken"], _preload_content=False, _return_http_data_only=True)
    result: dict[str, Any] = json.loads(answer.data)
    return result


def assert_valid(cluster: FakeCluster, item: Mapping[str, Any]) -> None:
    """The object is one that Kubernetes' own schemas allow, with no field too many."""
    kubernetes_validate.validate(dict(item), SPEC.version, strict=True)
