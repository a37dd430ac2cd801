"""The pod that measures one batch: the engine beside the worker, on the GPUs of one node.

The engine is a native sidecar (an init container with `restartPolicy: Always`, Kubernetes 1.29 and later): it starts first, its startup
probe holds the worker back until it answers, and it is ended after the worker has ended. The worker reaches it on the pod's own loopback.
Before both, `weights` puts the model into the cache volume, so that neither of them needs the hub.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from assets.benchmark.engines.protocol import EngineDriver, Launch
from assets.benchmark.executors.cluster import ENGINE_RESOURCES, Capacity, ClusterConfig
from assets.benchmark.job_file import launch_size
from assets.matrix.spec import Batch, HardwareConfig

Json = dict[str, Any]

ENGINE_PORT = 8000
JOB_NAME = "job.json"
MODELS_PATH = "/models"
HOME_PATH = "/home/dyno"
GPU_RESOURCE = "nvidia.com/gpu"
USER_ID = 10001
PROBE_PERIOD_S = 5
# The worker finishes nothing: it stops the load, marks the load point partial and stores that. The engine only has to end.
TERMINATION_GRACE_S = 60
# NCCL's segments between GPUs; PyTorch's 64 MiB default is too small (https://docs.vllm.ai/en/stable/deployment/docker/, --ipc=host).
SHARED_MEMORY_GIB_PER_GPU = 4
SCRATCH_GIB = 20
WORKER_CPUS, WORKER_MEMORY_GIB = 2, 2
LABEL_PREFIX = "dyno"
_ENGINE_VARIABLES = {
    "HOME": HOME_PATH,
    "XDG_CACHE_HOME": f"{HOME_PATH}/.cache",
    "HF_HUB_OFFLINE": "1",
    # PyTorch asks for the user's name, which a user without a line in /etc/passwd has not (getpass.getuser)
    "USER": "dyno",
}
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a batch under a protocol: the run that makes it, its number (from 1), and the capacity that it asks for."""

    protocol: str
    repeat: int
    number: int
    capacity: Capacity
    run_id: str

    def folder(self, cluster: ClusterConfig, partition_key: str) -> str:
        """Where in the object store the batch's job and checkpoints are."""
        return f"{cluster.checkpoints}/{partition_key}/{self.protocol}-r{self.repeat}"

    def name(self, partition_key: str) -> str:
        """The pod's name: the same for the same attempt, so that a second create of it is refused rather than doubled."""
        of_batch = hashlib.sha256(f"{partition_key}/{self.protocol}/{self.repeat}/{self.run_id}".encode()).hexdigest()[:16]
        return f"dyno-{of_batch}-{self.number}-{self.capacity.replace('_', '-')}"


def build_pod(
    batch: Batch,
    hardware: HardwareConfig,
    driver: EngineDriver,
    cluster: ClusterConfig,
    attempt: Attempt,
    *,
    environment: Mapping[str, str] | None = None,
    repository: str,
    owner: Mapping[str, str] | None = None,
) -> Json:
    """The manifest of the pod that measures `batch`.

    Args:
        batch: what to measure; its deployment is what the engine is launched as.
        hardware: the deployment's hardware config.
        driver: the engine's driver.
        cluster: where it runs.
        attempt: which try this is.
        repository: where on the hub the weights of this model version are.
        environment: further variables of the worker: Dagster's Pipes. They hold no secret.
        owner: an owner reference, upon whose end the pod is deleted.

    Raises:
        BadFlagError: the engine's driver does not know a flag of the deployment.
        ValueError: the hardware has no GPU, or the engine no image.
    """
    if not hardware.gpu_count:
        raise ValueError(f"{hardware.hardware_id} has no GPU: its batches run where Dyno runs, not in a pod of their own")
    image = driver.image(batch.deployment.framework_version)
    if image is None:
        raise ValueError(f"{driver.name} has no image")
    job_url = f"{attempt.folder(cluster, batch.partition_key)}/{JOB_NAME}"
    metadata: Json = {
        "name": attempt.name(batch.partition_key),
        "namespace": cluster.namespace,
        "labels": labels(batch, attempt),
        "annotations": {f"{LABEL_PREFIX}/deployment-id": batch.deployment.deployment_id},
    }
    if owner is not None:
        metadata["ownerReferences"] = [dict(owner)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": cluster.deadline_s,
            "terminationGracePeriodSeconds": TERMINATION_GRACE_S,
            "serviceAccountName": cluster.service_account,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "priorityClassName": cluster.priority_class,
            **({"imagePullSecrets": [{"name": cluster.image_pull_secret}]} if cluster.image_pull_secret else {}),
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER_ID,
                "runAsGroup": USER_ID,
                "fsGroup": USER_ID,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            **_placement(hardware, cluster, attempt.capacity),
            "initContainers": [
                _weights_container(batch, cluster, repository),
                _engine_container(batch, hardware, driver, image, cluster),
            ],
            "containers": [_worker_container(cluster, job_url, environment or {})],
            "volumes": _volumes(hardware, cluster),
        },
    }


def labels(batch: Batch, attempt: Attempt) -> dict[str, str]:
    """By which the pods of a batch are found again, by this run or by the one that comes after it."""
    version = batch.deployment.model_version
    return {
        "app.kubernetes.io/name": "dyno-benchmark",
        "app.kubernetes.io/part-of": "dyno",
        "app.kubernetes.io/managed-by": "dyno",
        f"{LABEL_PREFIX}/partition": label_value(batch.partition_key),
        f"{LABEL_PREFIX}/model": label_value(version.model_id),
        f"{LABEL_PREFIX}/quantization": label_value(version.quantization),
        f"{LABEL_PREFIX}/framework": label_value(batch.deployment.framework),
        f"{LABEL_PREFIX}/hardware": label_value(batch.deployment.hardware_id),
        f"{LABEL_PREFIX}/protocol": label_value(attempt.protocol),
        f"{LABEL_PREFIX}/repeat": str(attempt.repeat),
        f"{LABEL_PREFIX}/attempt": str(attempt.number),
        f"{LABEL_PREFIX}/capacity": attempt.capacity,
        f"{LABEL_PREFIX}/run-id": label_value(attempt.run_id),
    }


def label_value(text: str) -> str:
    """`text` as a label may have it: a longer one keeps its end's place with a hash, so that two stay apart."""
    if _LABEL_VALUE.fullmatch(text):
        return text
    kept = re.sub(r"[^A-Za-z0-9._-]", "-", text).strip("._-")[:46].rstrip("._-")
    return f"{kept}-{hashlib.sha256(text.encode()).hexdigest()[:16]}" if kept else hashlib.sha256(text.encode()).hexdigest()[:16]


def weights_path(batch: Batch) -> str:
    """Where in the cache volume a model version lies: another revision is another folder."""
    version = batch.deployment.model_version
    return f"{MODELS_PATH}/{version.model_id}/{version.quantization}/{version.revision or 'main'}"


def _placement(hardware: HardwareConfig, cluster: ClusterConfig, capacity: Capacity) -> Json:
    """Only nodes that have this GPU, of this capacity."""
    nodes = cluster.nodes(capacity)
    expressions: list[Json] = [
        {"key": cluster.gpu_product_label, "operator": "In", "values": list(cluster.gpu_products[hardware.gpu_type])},
    ]
    if nodes.label is not None:
        expressions.append({"key": nodes.label[0], "operator": "In", "values": [nodes.label[1]]})
    if nodes.absent_label is not None:
        expressions.append({"key": nodes.absent_label, "operator": "DoesNotExist"})
    required = {"nodeSelectorTerms": [{"matchExpressions": expressions}]}
    return {
        **({"nodeSelector": dict(cluster.node_labels)} if cluster.node_labels else {}),
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}},
        "tolerations": [taint.toleration() for taint in (*cluster.gpu_taints, *nodes.taints)],
    }


def _weights_container(batch: Batch, cluster: ClusterConfig, repository: str) -> Json:
    revision = batch.deployment.model_version.revision
    return {
        "name": "weights",
        "image": cluster.worker_image,
        "command": ["/opt/worker/bin/python", "-m", "assets.models.fetch_weights"],
        "args": [repository, *([f"--revision={revision}"] if revision else []), f"--into={weights_path(batch)}"],
        "env": [
            {"name": "HOME", "value": HOME_PATH},
            {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": cluster.hub_secret, "key": "DYNO_HUB_TOKEN", "optional": True}}},
        ],
        "resources": _resources(cpus=1, memory_gib=4),
        "securityContext": _container_security(),
        "volumeMounts": [{"name": "models", "mountPath": MODELS_PATH}, *_scratch_mounts()],
    }


def _engine_container(batch: Batch, hardware: HardwareConfig, driver: EngineDriver, image: str, cluster: ClusterConfig) -> Json:
    per_gpu = ENGINE_RESOURCES[hardware.gpu_type]
    resources = _resources(cpus=per_gpu.cpus * hardware.gpu_count, memory_gib=per_gpu.memory_gib * hardware.gpu_count)
    for kind in resources.values():
        kind[GPU_RESOURCE] = str(hardware.gpu_count)
    launch = launch_of(batch)
    command = list(driver.serve_command(launch))
    return {
        "name": "engine",
        "image": image,
        "restartPolicy": "Always",
        "command": command[:1],
        "args": command[1:],
        "env": [{"name": name, "value": value} for name, value in {**_ENGINE_VARIABLES, **driver.variables(launch)}.items()],
        "ports": [{"name": "http", "containerPort": ENGINE_PORT}],
        "startupProbe": {
            "httpGet": {"path": driver.ready_path, "port": "http"},
            "periodSeconds": PROBE_PERIOD_S,
            "timeoutSeconds": PROBE_PERIOD_S,
            "failureThreshold": cluster.engine_start_timeout_s // PROBE_PERIOD_S,
        },
        "resources": resources,
        "securityContext": _container_security(),
        "volumeMounts": [
            {"name": "models", "mountPath": MODELS_PATH, "readOnly": True},
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108  # not a temporary file: shared memory of the pod
            *_scratch_mounts(),
        ],
    }


def _worker_container(cluster: ClusterConfig, job_url: str, environment: Mapping[str, str]) -> Json:
    return {
        "name": "worker",
        "image": cluster.worker_image,
        "args": ["--job", job_url, "--progress-json"],
        "env": [
            {"name": "HOME", "value": HOME_PATH},
            {"name": "DYNO_NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "DYNO_NODE_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
            *({"name": name, "value": value} for name, value in environment.items()),
        ],
        "envFrom": [{"secretRef": {"name": cluster.storage_secret}}],
        "resources": _resources(cpus=WORKER_CPUS, memory_gib=WORKER_MEMORY_GIB),
        "securityContext": _container_security(),
        "volumeMounts": [{"name": "models", "mountPath": MODELS_PATH, "readOnly": True}, *_scratch_mounts()],
    }


def launch_of(batch: Batch) -> Launch:
    """How the engine of a batch is launched in its pod."""
    deployment = batch.deployment
    parallel, tokens_per_request = launch_size(batch)
    return Launch(
        model=weights_path(batch),
        port=ENGINE_PORT,
        parallel=parallel,
        tokens_per_request=tokens_per_request,
        tensor_parallel=deployment.tensor_parallel,
        quantization=deployment.model_version.quantization,
        flags=deployment.flags,
        # the kubelet's probe comes from outside of the pod's loopback
        host="0.0.0.0",  # noqa: S104
    )


def _volumes(hardware: HardwareConfig, cluster: ClusterConfig) -> Sequence[Json]:
    shared_memory = f"{SHARED_MEMORY_GIB_PER_GPU * hardware.gpu_count}Gi"
    return [
        {"name": "models", "persistentVolumeClaim": {"claimName": cluster.model_cache_claim}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": shared_memory}},
        {"name": "home", "emptyDir": {"sizeLimit": f"{SCRATCH_GIB}Gi"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": f"{SCRATCH_GIB}Gi"}},
    ]


def _scratch_mounts() -> list[Json]:
    return [{"name": "home", "mountPath": HOME_PATH}, {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108  # the pod's own


def _resources(*, cpus: int, memory_gib: int) -> dict[str, dict[str, str]]:
    """Requests equal limits: the pod gets what it was promised, no less and no more, or its numbers would depend on its neighbours."""
    amounts = {"cpu": str(cpus), "memory": f"{memory_gib}Gi"}
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _container_security() -> Json:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }
