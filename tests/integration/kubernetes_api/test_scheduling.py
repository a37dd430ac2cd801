"""Which node a pod goes to, and what is said when there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.kubernetes_api.support import (
    IMAGES,
    POLITE,
    condition,
    container,
    create,
    events,
    gone,
    in_phase,
    pod,
    running,
    when,
)
from tests.kubernetes_api.cluster import NAMESPACE, FakeCluster, project_image, running_cluster
from tests.kubernetes_api.spec import ClusterSpec, NodeSpec

SPOT: Final = "cloud.google.com/gke-spot"
PRODUCT: Final = "nvidia.com/gpu.product"
GPU_TAINT: Final = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
SPOT_TAINT: Final = {"key": SPOT, "value": "true", "effect": "NoSchedule"}
H100: Final = {PRODUCT: "NVIDIA-H100-80GB-HBM3"}
NODES: Final = (
    NodeSpec("cpu-1"),
    NodeSpec("h100-spot", {**H100, SPOT: "true"}, (GPU_TAINT, SPOT_TAINT), {"nvidia.com/gpu": "8"}),
    NodeSpec("h100-on-demand", H100, (GPU_TAINT,), {"nvidia.com/gpu": "2"}),
)
TOLERATES_GPU: Final = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
TOLERATES_SPOT: Final = {"key": SPOT, "operator": "Equal", "value": "true", "effect": "NoSchedule"}
PREFERS_SPOT: Final = {
    "nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 100, "preference": {"matchExpressions": [{"key": SPOT, "operator": "In", "values": ["true"]}]}}
        ]
    }
}


@pytest.fixture
def gpus(tmp_path: Path) -> Iterator[FakeCluster]:
    """A node without GPUs, a spot node with 8, an on-demand node with 2."""
    with running_cluster(ClusterSpec(nodes=NODES, images=IMAGES, priority_classes={"batch": 100}), tmp_path) as cluster:
        yield cluster


def gpu_pod(name: str, count: int, **spec: Any) -> dict[str, Any]:
    """A pod for H100s."""
    main = container(POLITE, resources={"limits": {"nvidia.com/gpu": str(count)}})
    return pod(name, main, nodeSelector=dict(H100), **spec)


def test_a_pod_goes_where_labels_taints_and_gpus_allow_it(gpus: FakeCluster) -> None:
    create(gpus, gpu_pod("any", 2, tolerations=[TOLERATES_GPU, TOLERATES_SPOT], affinity=PREFERS_SPOT, priorityClassName="batch"))
    create(gpus, gpu_pod("on-demand", 2, tolerations=[TOLERATES_GPU]))
    assert running(gpus, "any").spec.node_name == "h100-spot"
    assert running(gpus, "any").spec.priority == 100
    assert running(gpus, "on-demand").spec.node_name == "h100-on-demand"
    assert ("Scheduled", "Successfully assigned default/any to h100-spot") in events(gpus, "any")


def test_a_pod_that_fits_nowhere_says_why_and_waits(gpus: FakeCluster) -> None:
    create(gpus, gpu_pod("large", 16, tolerations=[TOLERATES_GPU, TOLERATES_SPOT]))
    found = when(gpus, "large", lambda each: condition(each, "PodScheduled"), "has been looked at")
    scheduled = condition(found, "PodScheduled")
    assert scheduled is not None
    assert (found.status.phase, scheduled.status, scheduled.reason) == ("Pending", "False", "Unschedulable")
    message = (
        "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 2 Insufficient nvidia.com/gpu. "
        "preemption: 0/3 nodes are available: 2 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
    )
    assert scheduled.message == message
    assert events(gpus, "large") == [("FailedScheduling", message)]
    assert not found.status.container_statuses  # as in a real cluster: only a node's kubelet reports containers


def test_a_taint_that_is_not_tolerated_keeps_a_pod_out(gpus: FakeCluster) -> None:
    create(gpus, gpu_pod("plain", 1))
    found = when(gpus, "plain", lambda each: condition(each, "PodScheduled"), "has been looked at")
    scheduled = condition(found, "PodScheduled")
    assert scheduled is not None
    assert "2 node(s) had untolerated taint(s)" in scheduled.message


def test_gpus_are_handed_on_when_their_pod_is_gone(gpus: FakeCluster) -> None:
    create(gpus, gpu_pod("first", 2, tolerations=[TOLERATES_GPU]))
    running(gpus, "first")
    create(gpus, gpu_pod("second", 2, tolerations=[TOLERATES_GPU]))
    when(gpus, "second", lambda each: condition(each, "PodScheduled"), "has been looked at")
    gpus.core().delete_namespaced_pod("first", NAMESPACE)
    gone(gpus, "first")
    assert running(gpus, "second").spec.node_name == "h100-on-demand"


def test_a_new_node_takes_the_pods_that_wait_and_a_cordoned_one_none(gpus: FakeCluster) -> None:
    gpus.cordon("h100-on-demand")
    create(gpus, gpu_pod("waits", 1, tolerations=[TOLERATES_GPU]))
    found = when(gpus, "waits", lambda each: condition(each, "PodScheduled"), "has been looked at")
    scheduled = condition(found, "PodScheduled")
    assert scheduled is not None
    assert "1 node(s) were unschedulable" in scheduled.message
    gpus.add_node(NodeSpec("h100-new", H100, (GPU_TAINT,), {"nvidia.com/gpu": "1"}))
    assert running(gpus, "waits").spec.node_name == "h100-new"


def test_a_pod_without_its_claim_or_priority_class_does_not_run(gpus: FakeCluster) -> None:
    volumes = [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}]
    create(gpus, pod("claims", container("true"), volumes=volumes))
    when(gpus, "claims", lambda each: condition(each, "PodScheduled"), "has been looked at")
    assert events(gpus, "claims") == [("FailedScheduling", '0/3 nodes are available: persistentvolumeclaim "models" not found.')]


def test_two_pods_listen_on_one_port_with_loopbacks_of_their_own(tmp_path: Path) -> None:
    spec = ClusterSpec(images=(project_image("python"),), private_loopback=True)
    serve = "import http.server, sys; http.server.HTTPServer((sys.argv[1], 48123), http.server.SimpleHTTPRequestHandler).handle_request()"
    fetch = (
        "import socket, sys, time\n"
        "while True:\n"
        "    try:\n"
        "        socket.create_connection((sys.argv[1], 48123)).close()\n"
        "        break\n"
        "    except ConnectionRefusedError:\n"
        "        time.sleep(0.05)\n"
    )

    def python(name: str, code: str, **fields: Any) -> dict[str, Any]:
        return {"name": name, "image": "python:3", "command": ["python", "-c", code, "127.0.0.1"], **fields}

    with running_cluster(spec, tmp_path) as cluster:
        for name in ("a", "b"):
            create(cluster, pod(name, python("serve", serve), python("fetch", fetch)))
        addresses = {in_phase(cluster, name, "Succeeded").status.pod_ip for name in ("a", "b")}
        assert len(addresses) == 2
