"""What must hold for a pod that measures a batch, beyond Kubernetes' schemas: found from the manifest and the deployment it is for.

Nothing here knows how the pod was made. Each rule yields a sentence for each problem.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from k8s.manifests import Document, workloads
from k8s.rules import containers_have_resources, images_are_pinned, pods_are_restricted

GPU = "nvidia.com/gpu"
PRODUCT_LABEL = "nvidia.com/gpu.product"
LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
SECRET_WORDS = re.compile(r"TOKEN|SECRET|PASSWORD|KEY", re.IGNORECASE)
SPOT_LABELS = {
    "karpenter.sh/capacity-type": "spot",
    "eks.amazonaws.com/capacityType": "SPOT",
    "cloud.google.com/gke-spot": "true",
    "kubernetes.azure.com/scalesetpriority": "spot",
}
HUGE_PAGES = "hugepages-"


@dataclass(frozen=True, slots=True)
class Expected:
    """What the pod is for."""

    framework: str
    gpu_type_words: tuple[str, ...]
    gpu_count: int
    tensor_parallel: int
    capacity: str


def batch_pod_problems(pod: Document, expected: Expected) -> list[str]:
    """Everything that is wrong with one pod."""
    documents = [pod]
    general = [*pods_are_restricted(documents), *containers_have_resources(documents), *images_are_pinned(documents)]
    rules = (_names, _life, _gpus, _placement, _engine, _worker, _mounts, _secrets)
    return general + [problem for rule in rules for problem in rule(pod, expected)]


def _container(pod: Document, name: str) -> Document:
    [workload] = workloads([pod])
    return next(container for container in workload.containers() if container["name"] == name)


def _names(pod: Document, expected: Expected) -> Iterator[str]:
    metadata = pod["metadata"]
    if not NAME.fullmatch(metadata["name"]):
        yield f"{metadata['name']} is no name of a pod that may also be a host's"
    for key, value in metadata.get("labels", {}).items():
        if not LABEL.fullmatch(value):
            yield f"label {key}: {value!r} is no label value"
    for key in ("dyno/partition", "dyno/run-id", "dyno/attempt", "dyno/capacity"):
        if not metadata.get("labels", {}).get(key):
            yield f"label {key} is missing: the pod could not be found again"
    if metadata["labels"].get("dyno/capacity") != expected.capacity:
        yield "label dyno/capacity does not say what the pod asks for"


def _life(pod: Document, _: Expected) -> Iterator[str]:
    spec = pod["spec"]
    if spec.get("restartPolicy") != "Never":
        yield "restartPolicy must be Never: a second attempt is the run's to make"
    if not spec.get("activeDeadlineSeconds"):
        yield "no activeDeadlineSeconds: an orphan would hold its GPUs for ever"
    if spec.get("terminationGracePeriodSeconds", 30) < 30:
        yield "terminationGracePeriodSeconds is too short to store a checkpoint"
    if not spec.get("priorityClassName"):
        yield "no priorityClassName: a benchmark must never push out what serves people"
    if spec.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken must be false"


def _gpus(pod: Document, expected: Expected) -> Iterator[str]:
    [workload] = workloads([pod])
    for container in workload.containers():
        resources = container["resources"]
        limit, request = resources.get("limits", {}).get(GPU), resources.get("requests", {}).get(GPU)
        wanted = str(expected.gpu_count) if container["name"] == "engine" else None
        if limit != wanted or request not in {limit, None}:
            yield f"container {container['name']}: {limit or 'no'} GPUs, not {wanted or 'none'}"
        if any(name.startswith(HUGE_PAGES) or (name.startswith("nvidia.com/") and name != GPU) for name in resources.get("limits", {})):
            yield f"container {container['name']}: asks for something other than whole GPUs"
        if resources.get("requests") != resources.get("limits"):
            yield f"container {container['name']}: requests differ from limits, so its speed would depend on its neighbours"


def _placement(pod: Document, expected: Expected) -> Iterator[str]:
    spec = pod["spec"]
    terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    if len(terms) != 1:
        yield "the node selector terms are alternatives of one another: there must be one"
    expressions = {expression["key"]: expression for expression in terms[0]["matchExpressions"]}
    products = expressions.get(PRODUCT_LABEL, {}).get("values", [])
    if not products:
        yield "any GPU would do"
    for product in products:
        if not all(word in product for word in expected.gpu_type_words):
            yield f"{product} is not of the hardware config"
    tolerations = spec.get("tolerations", [])
    if not any(toleration["key"] == GPU for toleration in tolerations):
        yield "no toleration of the taint of GPU nodes"
    asks_spot = any(expressions.get(key, {}).get("values") == [value] for key, value in SPOT_LABELS.items())
    if asks_spot != (expected.capacity == "spot"):
        yield f"the pod asks for {'spot' if asks_spot else 'on-demand'} nodes, not for {expected.capacity}"
    for toleration in tolerations:
        if SPOT_LABELS.get(toleration["key"]) and expected.capacity != "spot":
            yield "an on-demand pod tolerates spot nodes"


def _engine(pod: Document, expected: Expected) -> Iterator[str]:
    [workload] = workloads([pod])
    inits = [container["name"] for container in pod["spec"].get("initContainers", [])]
    if inits[-1:] != ["engine"]:
        yield "the engine must be the last init container"
    engine = _container(pod, "engine")
    if engine.get("restartPolicy") != "Always":
        yield "the engine is no sidecar: the worker would never start"
    probe = engine.get("startupProbe", {})
    if "httpGet" not in probe:
        yield "the engine has no startup probe: the worker would start before it answers"
    elif probe.get("failureThreshold", 3) * probe.get("periodSeconds", 10) < 600:
        yield "the startup probe gives a large model no time to load"
    if {container["name"] for container in workload.pod["containers"]} != {"worker"}:
        yield "the worker must be the one main container: the pod ends with it"
    words = [*engine.get("command", []), *engine.get("args", [])]
    if expected.tensor_parallel > 1 and str(expected.tensor_parallel) not in {word.rpartition("=")[2] for word in words}:
        yield f"the engine's command says nothing of {expected.tensor_parallel} GPUs"
    if any(word in {"--enable-prefix-caching", "--enable-prefix-caching=true"} for word in words):
        yield "the prefix cache is on"
    ports = {port["containerPort"] for port in engine.get("ports", [])}
    if not ports & {int(value) for word in words if (value := word.rpartition("=")[2]).isdigit()}:
        yield f"the engine's command names none of its ports {sorted(ports)}"


def _worker(pod: Document, _: Expected) -> Iterator[str]:
    arguments = _container(pod, "worker").get("args", [])
    given = dict(zip(arguments, [*arguments[1:], ""], strict=True))
    if urlsplit(given.get("--job", "")).scheme not in {"s3", "gs"}:
        yield "the worker's --job is not in an object store"


def _mounts(pod: Document, expected: Expected) -> Iterator[str]:
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    [workload] = workloads([pod])
    for container in workload.containers():
        mounts = {mount["mountPath"]: mount for mount in container.get("volumeMounts", [])}
        for mount in mounts.values():
            if mount["name"] not in volumes:
                yield f"container {container['name']}: no volume {mount['name']}"
        if "/tmp" not in mounts:  # noqa: S108  # a path inside of the pod
            yield f"container {container['name']}: nothing can be written to /tmp"
        if container["name"] != "weights" and mounts.get("/models", {}).get("readOnly") is not True:
            yield f"container {container['name']}: the weights are not mounted read-only"
    shared = {mount["mountPath"]: mount["name"] for mount in _container(pod, "engine").get("volumeMounts", [])}.get("/dev/shm")  # noqa: S108
    if expected.gpu_count > 1 and (shared is None or volumes[shared].get("emptyDir", {}).get("medium") != "Memory"):
        yield "several GPUs without shared memory"
    for name, volume in volumes.items():
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"volume {name} has no size limit"


def _secrets(pod: Document, _: Expected) -> Iterator[str]:
    [workload] = workloads([pod])
    for container in workload.containers():
        names = [variable["name"] for variable in container.get("env", [])]
        if len(names) != len(set(names)):
            yield f"container {container['name']}: a variable is there twice"
        for variable in container.get("env", []):
            if SECRET_WORDS.search(variable["name"]) and "value" in variable:
                yield f"container {container['name']}: {variable['name']} is written into the pod"
            named = variable.get("valueFrom", {}).get("secretKeyRef", {}).get("key", "")
            if named == "DYNO_HUB_TOKEN" and container["name"] != "weights":
                yield f"container {container['name']}: only what fetches the weights needs the hub's token"
