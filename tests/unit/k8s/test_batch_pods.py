"""The pods of batches: valid at two Kubernetes versions for every kind of the feasible matrix, and broken in one place, refused."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from assets.benchmark.engines.registry import driver_for
from assets.benchmark.executors.cluster import Capacity, ClusterConfig
from assets.benchmark.executors.pod import Attempt, build_pod, label_value
from assets.matrix.dimensions import load_hardware
from assets.matrix.spec import Batch, HardwareConfig
from k8s.batch_rules import Expected, batch_pod_problems
from k8s.manifests import Document
from k8s.validate import schema_problems
from orchestration.commands.k8s import EXAMPLE_RUN_ID, K8sCommandError, find_batch, kinds_of, pod_yaml

EXAMPLES = Path(__file__).resolve().parents[3] / "k8s" / "examples"
CLUSTER = ClusterConfig("registry.example.com/dyno-worker:0.1.0", "s3://dyno/checkpoints")
MODEL = "llama-3.1-8b"


def attempt(capacity: Capacity = "spot") -> Attempt:
    return Attempt("standard", 0, 1, capacity, EXAMPLE_RUN_ID)


def pod_of(batch: Batch, capacity: Capacity = "spot", cluster: ClusterConfig = CLUSTER) -> Document:
    found: Document = yaml.safe_load(pod_yaml(batch, cluster, attempt(capacity)))
    return found


def expected(batch: Batch, capacity: Capacity = "spot") -> Expected:
    hardware: HardwareConfig = load_hardware()[batch.deployment.hardware_id]
    words = tuple(hardware.gpu_type.split("-"))
    return Expected(batch.deployment.framework, words, hardware.gpu_count, batch.deployment.tensor_parallel, capacity)


@pytest.fixture(scope="module")
def kinds() -> dict[str, Batch]:
    """The feasible kinds of one model, by engine, quantization and hardware."""
    return {f"{b.deployment.framework}__{b.deployment.model_version.quantization}__{b.deployment.hardware_id}": b for b in kinds_of(MODEL)}


def test_every_kind_of_the_feasible_matrix_is_a_valid_pod(kinds: dict[str, Batch]) -> None:
    """Kubernetes' own schemas at two versions, unknown fields included, and our rules; on spot capacity and on demand."""
    assert {batch.deployment.framework for batch in kinds.values()} == {"vllm", "tgi", "lmdeploy"}
    assert len(kinds) > 100
    capacities: Iterator[Capacity] = iter(("spot", "on_demand") * len(kinds))
    for name, batch in kinds.items():
        capacity = next(capacities)
        pod = pod_of(batch, capacity)
        assert schema_problems([pod]) == [], name
        assert batch_pod_problems(pod, expected(batch, capacity)) == [], name


@pytest.mark.parametrize("provider", ["karpenter", "eks", "gke", "aks"])
@pytest.mark.parametrize("capacity", ["spot", "on_demand"])
def test_each_provider_tells_spot_from_on_demand(kinds: dict[str, Batch], provider: Any, capacity: Capacity) -> None:
    batch = kinds["vllm__fp8__h100-80gb-x4"]
    cluster = ClusterConfig("w:1", "gs://bucket", provider=provider)
    pod = pod_of(batch, capacity, cluster)
    assert batch_pod_problems(pod, expected(batch, capacity)) == []
    assert schema_problems([pod]) == []


@pytest.mark.parametrize("name", ["vllm__fp8__h100-80gb-x4", "tgi__fp16__a100-80gb-x1", "lmdeploy__int4__l4-x1"])
def test_the_examples_are_what_is_rendered(kinds: dict[str, Batch], name: str) -> None:
    """For a person to read. Write them anew with: ./dyno k8s render --all DIR, and copy these three."""
    assert (EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8") == pod_yaml(kinds[name], CLUSTER, attempt())


def part(pod: Document, name: str) -> Any:
    return next(c for c in (*pod["spec"]["initContainers"], *pod["spec"]["containers"]) if c["name"] == name)


def selectors(pod: Document) -> Any:
    affinity = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return affinity["nodeSelectorTerms"][0]["matchExpressions"]


BREAKS: list[tuple[str, Callable[[Document], Any]]] = [
    ("the engine is no sidecar", lambda p: part(p, "engine").pop("restartPolicy")),
    ("no startup probe", lambda p: part(p, "engine").pop("startupProbe")),
    ("gives a large model no time", lambda p: part(p, "engine")["startupProbe"].update(failureThreshold=3)),
    ("the engine must be the last", lambda p: p["spec"]["initContainers"].reverse()),
    ("3 GPUs, not 4", lambda p: part(p, "engine")["resources"]["limits"].update({"nvidia.com/gpu": "3"})),
    ("container worker: 1 GPUs, not none", lambda p: part(p, "worker")["resources"]["limits"].update({"nvidia.com/gpu": "1"})),
    ("other than whole GPUs", lambda p: part(p, "engine")["resources"]["limits"].update({"nvidia.com/mig-1g.10gb": "1"})),
    ("requests differ from limits", lambda p: part(p, "engine")["resources"]["requests"].update(cpu="1")),
    ("any GPU would do", lambda p: selectors(p).pop(0)),
    ("NVIDIA-L4 is not of the hardware", lambda p: selectors(p)[0]["values"].append("NVIDIA-L4")),
    ("asks for on-demand nodes, not for spot", lambda p: selectors(p).pop(1)),
    ("no toleration of the taint", lambda p: p["spec"].update(tolerations=[])),
    ("no activeDeadlineSeconds", lambda p: p["spec"].pop("activeDeadlineSeconds")),
    ("restartPolicy must be Never", lambda p: p["spec"].update(restartPolicy="OnFailure")),
    ("must never push out", lambda p: p["spec"].pop("priorityClassName")),
    ("too short to store a checkpoint", lambda p: p["spec"].update(terminationGracePeriodSeconds=5)),
    ("says nothing of 4 GPUs", lambda p: part(p, "engine").update(args=["serve", "--port=8000"])),
    ("the prefix cache is on", lambda p: part(p, "engine")["args"].append("--enable-prefix-caching")),
    ("names none of its ports", lambda p: part(p, "engine")["ports"].append({"containerPort": 9}) or part(p, "engine")["ports"].pop(0)),
    ("is not in an object store", lambda p: part(p, "worker").update(args=["--job", "/job.json"])),
    ("nothing can be written to /tmp", lambda p: part(p, "engine").update(volumeMounts=part(p, "engine")["volumeMounts"][:-1])),
    ("not mounted read-only", lambda p: part(p, "engine")["volumeMounts"][0].pop("readOnly")),
    ("several GPUs without shared memory", lambda p: p["spec"]["volumes"][1].update(emptyDir={"sizeLimit": "1Gi"})),
    ("has no size limit", lambda p: p["spec"]["volumes"][2].update(emptyDir={})),
    ("is written into the pod", lambda p: part(p, "weights")["env"].append({"name": "HF_TOKEN", "value": "hf_1"})),
    ("a variable is there twice", lambda p: part(p, "engine")["env"].append({"name": "HOME", "value": "/root"})),
    ("only what fetches the weights", lambda p: part(p, "engine")["env"].append(part(p, "weights")["env"][-1])),
    ("is no label value", lambda p: p["metadata"]["labels"].update({"dyno/partition": "a/b"})),
    ("label dyno/run-id is missing", lambda p: p["metadata"]["labels"].pop("dyno/run-id")),
    ("must be neither privileged nor root", lambda p: part(p, "engine")["securityContext"].update(privileged=True)),
    ("readOnlyRootFilesystem must be true", lambda p: part(p, "worker")["securityContext"].pop("readOnlyRootFilesystem")),
]


@pytest.mark.parametrize(("sentence", "break_it"), BREAKS, ids=[sentence for sentence, _ in BREAKS])
def test_a_pod_that_is_broken_in_one_place_is_refused(kinds: dict[str, Batch], sentence: str, break_it: Callable[[Document], Any]) -> None:
    batch = kinds["vllm__fp8__h100-80gb-x4"]
    pod = copy.deepcopy(pod_of(batch))
    break_it(pod)
    assert any(sentence in problem for problem in batch_pod_problems(pod, expected(batch)))


def test_the_same_attempt_has_the_same_name_and_another_has_another() -> None:
    """A create that is repeated after a lost answer is refused by the API, instead of making a second pod."""
    first = Attempt("standard", 0, 1, "spot", "run")
    assert first.name("key") == Attempt("standard", 0, 1, "spot", "run").name("key")
    others = [
        Attempt("standard", 0, 2, "spot", "run"),
        Attempt("standard", 0, 1, "on_demand", "run"),
        Attempt("demo", 0, 1, "spot", "run"),
        Attempt("standard", 1, 1, "spot", "run"),
        Attempt("standard", 0, 1, "spot", "another"),
    ]
    assert len({other.name("key") for other in others} | {first.name("key"), first.name("another")}) == 7


def test_long_and_odd_texts_become_labels_that_stay_apart() -> None:
    texts = ["a" * 64, "a" * 65, "org/name", "org-name", "", "ü"]
    labels = [label_value(text) for text in texts]
    assert len(set(labels)) == len(texts)
    assert all(0 < len(label) <= 63 for label in labels)


def test_a_batch_is_found_by_its_key_and_an_unknown_key_says_where_to_look(kinds: dict[str, Batch]) -> None:
    batch = kinds["vllm__fp8__h100-80gb-x4"]
    assert find_batch(batch.partition_key) == batch
    with pytest.raises(K8sCommandError, match="matrix MODEL"):
        find_batch("llama-3.1-8b__fp8__vllm__00000000-1")


def test_what_has_no_gpu_gets_no_pod(kinds: dict[str, Batch]) -> None:
    batch = kinds["vllm__fp16__l4-x1"]
    with pytest.raises(ValueError, match="has no GPU"):
        build_pod(batch, load_hardware()["cpu"], driver_for("vllm"), CLUSTER, attempt(), repository="a/b")
