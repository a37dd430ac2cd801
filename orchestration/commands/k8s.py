"""`./dyno k8s`: the pods that batches run as on a cluster, without a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
import yaml

from assets.benchmark.engines.registry import driver_for
from assets.benchmark.executors.cluster import Capacity, ClusterConfig
from assets.benchmark.executors.pod import Attempt, build_pod
from assets.matrix.batches import batches_of
from assets.matrix.dimensions import load_hardware
from assets.matrix.generate import matrices_of
from assets.matrix.spec import Batch
from assets.models.registry import find_model, known_model_ids
from orchestration import console
from orchestration.kubernetes_settings import load_kubernetes_settings

app = typer.Typer(no_args_is_help=True)
EXAMPLE_RUN_ID = "00000000-0000-0000-0000-000000000000"
PARTITION_SEPARATOR = "__"


class K8sCommandError(Exception):
    """The pods asked for cannot be made; the message says why."""


@app.callback()
def k8s() -> None:
    """The pods that batches run as on a cluster."""


@app.command()
def render(  # noqa: PLR0917  # one parameter an option; typer passes them by name
    partition: Annotated[
        str | None, typer.Argument(metavar="[PARTITION]", help="Partition key of a batch, as the Dagster UI shows it.")
    ] = None,
    every: Annotated[
        Path | None, typer.Option("--all", metavar="DIR", help="Write a file for each engine x quantization x hardware into this folder.")
    ] = None,
    model: Annotated[str, typer.Option(help="Model of --all.")] = "llama-3.1-8b",
    capacity: Annotated[Capacity, typer.Option(help="Capacity that the pod asks for first.")] = "spot",
    protocol: Annotated[str, typer.Option(help="Protocol of the measurement.")] = "standard",
    run_id: Annotated[str, typer.Option(help="Dagster run that the pod belongs to.")] = EXAMPLE_RUN_ID,
) -> None:
    """Print the pod of a batch as YAML, or write those of a model's whole feasible matrix. Needs no cluster.

    The cluster is described by DYNO_K8S_* (docs/configuration.md). What runs is this pod, with the run's own id and Dagster's variables.

    Examples:

      ./dyno k8s render llama-3.1-8b__fp8__vllm__1a2b3c4d-1

      ./dyno k8s render --all pods --model llama-3.1-70b

      DYNO_K8S_PROVIDER=gke ./dyno k8s render --all pods
    """
    if (partition is None) == (every is None):
        raise K8sCommandError("give either the partition of one batch, or --all DIR")
    cluster = load_kubernetes_settings().cluster()
    attempt = Attempt(protocol, 0, 1, capacity, run_id)
    if partition is not None:
        console.out.print(pod_yaml(find_batch(partition), cluster, attempt), markup=False, highlight=False, soft_wrap=True, end="")
        return
    folder = every or Path()
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for batch in kinds_of(model):
        deployment = batch.deployment
        name = f"{deployment.framework}__{deployment.model_version.quantization}__{deployment.hardware_id}.yaml"
        (folder / name).write_text(pod_yaml(batch, cluster, attempt), encoding="utf-8")
        count += 1
    if not count:
        raise K8sCommandError(f"nothing of {model} can run on a GPU: ./dyno matrix {model} --rejected says why")
    missing = sorted({batch.deployment.model_version.quantization for batch in kinds_of(model) if not _is_named(batch, cluster)})
    if missing:
        console.warn(f"DYNO_K8S_WEIGHTS names no repository of {model} in {', '.join(missing)}: these pods say so in their place")
    console.done(f"{count} pods of {model} in {folder}, a file for each engine x quantization x hardware")


def pod_yaml(batch: Batch, cluster: ClusterConfig, attempt: Attempt) -> str:
    """The pod of a batch as YAML. Raises BadFlagError, ValueError."""
    hardware, version = load_hardware()[batch.deployment.hardware_id], batch.deployment.model_version
    repository = cluster.repository(version.model_id, version.quantization, find_model(version.model_id).hub_id)
    pod = build_pod(batch, hardware, driver_for(batch.deployment.framework), cluster, attempt, repository=repository or unnamed(batch))
    text: str = yaml.safe_dump(pod, sort_keys=False, width=140)
    return text


def unnamed(batch: Batch) -> str:
    """What stands in a pod's place for the repository that the settings do not name."""
    version = batch.deployment.model_version
    return f"<name it: DYNO_K8S_WEIGHTS={version.model_id}/{version.quantization}=ORG/NAME>"


def kinds_of(model: str) -> Iterator[Batch]:
    """The first batch of each deployment of a model's feasible GPU matrix. Raises UnknownModelError."""
    seen: set[str] = set()
    for batch in _gpu_batches(find_model(model).model_id):
        if batch.deployment.deployment_id not in seen:
            seen.add(batch.deployment.deployment_id)
            yield batch


def find_batch(partition: str) -> Batch:
    """The batch of a partition key, of the models that ship with Dyno. Raises K8sCommandError."""
    of_key = partition.partition(PARTITION_SEPARATOR)[0]
    for model_id in known_model_ids():
        # a long model id is cut in the key
        if model_id.startswith(of_key):
            for batch in _gpu_batches(model_id):
                if batch.partition_key == partition:
                    return batch
    raise K8sCommandError(
        f"no GPU batch of the models that ship with Dyno has the key {partition}: ./dyno matrix MODEL --feasible --json lists them"
    )


def _is_named(batch: Batch, cluster: ClusterConfig) -> bool:
    version = batch.deployment.model_version
    return cluster.repository(version.model_id, version.quantization, find_model(version.model_id).hub_id) is not None


def _gpu_batches(model_id: str) -> Iterator[Batch]:
    facts = find_model(model_id)
    hardware = load_hardware()
    for batch in batches_of(matrices_of(facts)):
        if hardware[batch.deployment.hardware_id].gpu_count:
            yield batch
