"""What the pods need to know of a cluster: where they run, what they may use, and how its nodes are told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Capacity = Literal["spot", "on_demand"]
Provider = Literal["karpenter", "eks", "gke", "aks", "none"]


@dataclass(frozen=True, slots=True)
class Taint:
    """A taint that pods of ours tolerate; without a value, whatever its value is."""

    key: str
    value: str | None = None
    effect: str = "NoSchedule"

    def toleration(self) -> dict[str, str]:
        """As a pod spec has it."""
        if self.value is None:
            return {"key": self.key, "operator": "Exists", "effect": self.effect}
        return {"key": self.key, "operator": "Equal", "value": self.value, "effect": self.effect}


@dataclass(frozen=True, slots=True)
class Nodes:
    """How nodes of one capacity are recognised: a label with its value, and the taints that keep other pods away from them."""

    label: tuple[str, str] | None = None
    absent_label: str | None = None
    taints: Sequence[Taint] = ()


# Labels and taints that the providers put on nodes themselves.
# Karpenter: https://karpenter.sh/docs/concepts/scheduling/ (karpenter.sh/capacity-type). EKS managed node groups:
# https://docs.aws.amazon.com/eks/latest/userguide/managed-node-groups.html (eks.amazonaws.com/capacityType). GKE:
# https://cloud.google.com/kubernetes-engine/docs/concepts/spot-vms (the label on spot nodes only; the taint is the one recommended there).
# AKS: https://learn.microsoft.com/azure/aks/spot-node-pool (label on spot nodes only, and the taint that AKS sets itself).
NODES: Mapping[Provider, Mapping[Capacity, Nodes]] = {
    "karpenter": {
        "spot": Nodes(label=("karpenter.sh/capacity-type", "spot")),
        "on_demand": Nodes(label=("karpenter.sh/capacity-type", "on-demand")),
    },
    "eks": {
        "spot": Nodes(label=("eks.amazonaws.com/capacityType", "SPOT")),
        "on_demand": Nodes(label=("eks.amazonaws.com/capacityType", "ON_DEMAND")),
    },
    "gke": {
        "spot": Nodes(label=("cloud.google.com/gke-spot", "true"), taints=(Taint("cloud.google.com/gke-spot", "true"),)),
        "on_demand": Nodes(absent_label="cloud.google.com/gke-spot"),
    },
    "aks": {
        "spot": Nodes(
            label=("kubernetes.azure.com/scalesetpriority", "spot"),
            taints=(Taint("kubernetes.azure.com/scalesetpriority", "spot"),),
        ),
        "on_demand": Nodes(absent_label="kubernetes.azure.com/scalesetpriority"),
    },
    "none": {"spot": Nodes(), "on_demand": Nodes()},
}

# Values of `nvidia.com/gpu.product`, which NVIDIA's GPU feature discovery makes of the driver's product name, blanks as dashes:
# https://github.com/NVIDIA/k8s-device-plugin/blob/main/docs/gpu-feature-discovery/README.md
GPU_PRODUCTS: Mapping[str, tuple[str, ...]] = {
    "L4": ("NVIDIA-L4",),
    "A100-80GB": ("NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-80GB-PCIe"),
    "H100": ("NVIDIA-H100-80GB-HBM3",),
    "H200": ("NVIDIA-H200",),
}


@dataclass(frozen=True, slots=True)
class EngineResources:
    """What an engine asks of its node for each GPU, beside the GPU: CPUs, and host memory in GiB."""

    cpus: int
    memory_gib: int


# A share of the smallest common machine of each type that leaves room for the worker and the node's own pods:
# g6.xlarge (4 vCPU, 16 GiB, L4), a2-ultragpu-1g (12 vCPU, 170 GiB, A100 80 GB), p5.4xlarge and a3-highgpu-1g (H100, H200: more).
ENGINE_RESOURCES: Mapping[str, EngineResources] = {
    "L4": EngineResources(1, 9),
    "A100-80GB": EngineResources(6, 96),
    "H100": EngineResources(8, 128),
    "H200": EngineResources(8, 128),
}


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """One cluster, as `DYNO_K8S_*` describe it (docs/configuration.md).

    `checkpoints` is the object store's address that both the pods and the run can use. Secrets are named, never held: `storage_secret` has
    the store's credentials as environment variables, `hub_secret` the Hugging Face token under `DYNO_HUB_TOKEN`. `weights` names hub
    repositories of quantized weights by `model id/quantization`.
    """

    worker_image: str
    checkpoints: str
    namespace: str = "gpu-workloads"
    provider: Provider = "karpenter"
    service_account: str = "dyno-benchmark"
    priority_class: str = "dyno-benchmark"
    model_cache_claim: str = "dyno-models"
    storage_secret: str = "dyno-storage"  # noqa: S105  # the name of one
    hub_secret: str = "dyno-hub"  # noqa: S105  # the name of one
    image_pull_secret: str | None = None
    weights: Mapping[str, str] = field(default_factory=dict)
    gpu_taints: Sequence[Taint] = (Taint("nvidia.com/gpu"),)
    gpu_product_label: str = "nvidia.com/gpu.product"
    gpu_products: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: GPU_PRODUCTS)
    node_labels: Mapping[str, str] = field(default_factory=dict)
    deadline_s: int = 6 * 3600
    engine_start_timeout_s: int = 1800

    def repository(self, model_id: str, quantization: str, hub_id: str | None) -> str | None:
        """Where on the hub a model version is; None where nobody has said.

        Engines make fp8 of 16-bit weights while they load them; int8 and int4 are repositories of their own.
        """
        named = self.weights.get(f"{model_id}/{quantization}")
        return named or (hub_id if quantization in {"fp16", "fp8"} else None)

    def nodes(self, capacity: Capacity) -> Nodes:
        """How the provider marks nodes of this capacity."""
        return NODES[self.provider][capacity]
