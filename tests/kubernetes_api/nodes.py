"""Node objects."""

from __future__ import annotations

from typing import Final

from tests.kubernetes_api.objects import Object, now
from tests.kubernetes_api.spec import NodeSpec

DEFAULT_ALLOCATABLE: Final = {"cpu": "64", "memory": "512Gi", "ephemeral-storage": "1Ti", "pods": "110"}


def node_object(spec: NodeSpec) -> Object:
    """A ready node with the well-known labels."""
    labels = {"kubernetes.io/hostname": spec.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", **spec.labels}
    allocatable = {**DEFAULT_ALLOCATABLE, **spec.allocatable}
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "kubelet is posting ready status",
        "lastHeartbeatTime": now(),
        "lastTransitionTime": now(),
    }
    return {
        "metadata": {"name": spec.name, "labels": labels},
        "spec": {**({"taints": [dict(taint) for taint in spec.taints]} if spec.taints else {})},
        "status": {"capacity": allocatable, "allocatable": allocatable, "conditions": [ready]},
    }
