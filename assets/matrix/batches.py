"""Feasible configurations grouped into batches: at most 100 of one deployment, measured by one engine launch.

A batch is one Dagster partition. Its key depends on its deployment and on where its configurations stand in the dimensions, not on other
deployments, nor on what is feasible today: batches are cut over all configurations of a deployment, then those that cannot run are
left out. So a key stays when hardware, engines or quantizations are added, and when workloads are added at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from assets.matrix.errors import PartitionKeyCollisionError
from assets.matrix.generate import Cell, Matrix
from assets.matrix.spec import Batch, Configuration, Deployment

MAX_BATCH_SIZE = 100
KUBERNETES_LABEL_LENGTH = 63


def partitions_name(hardware_id: str) -> str:
    """The name of the dynamic partitions of a hardware config: `batches_h100_80gb_x4`."""
    return "batches_" + hardware_id.replace("-", "_").replace(".", "_")


def batches_of(matrices: Iterable[Matrix]) -> tuple[Batch, ...]:
    """The batches of a model, in the order of its matrices.

    Raises:
        PartitionKeyCollisionError: two batches have the same key (the first 32 bits of two deployment ids agree).
    """
    batches: dict[str, Batch] = {}
    for matrix in matrices:
        for batch in _batches(matrix):
            if batch.partition_key in batches:
                raise PartitionKeyCollisionError(
                    f"two batches have the key {batch.partition_key}: change a flag of one of their deployments, so that its id changes"
                )
            batches[batch.partition_key] = batch
    return tuple(batches.values())


def _batches(matrix: Matrix) -> Iterator[Batch]:
    for _, group in groupby(matrix.cells, key=lambda cell: cell.configuration.deployment.deployment_id):
        cells = list(group)
        deployment = cells[0].configuration.deployment
        if not matrix.split_batches_by_workload:
            yield from _cut(deployment, cells, None)
            continue
        for workload, of_workload in groupby(cells, key=lambda cell: cell.configuration.load_point.workload.name):
            yield from _cut(deployment, list(of_workload), workload)


def _cut(deployment: Deployment, cells: list[Cell], workload: str | None) -> Iterator[Batch]:
    for number, start in enumerate(range(0, len(cells), MAX_BATCH_SIZE), start=1):
        feasible = [cell.configuration for cell in cells[start : start + MAX_BATCH_SIZE] if cell.feasible]
        if feasible:
            yield Batch(partition_key(deployment, workload, number), deployment, tuple(sorted(feasible, key=_measuring_order)))


def _measuring_order(configuration: Configuration) -> tuple[int, str, int]:
    """Short requests first, and rising load within a workload, so that a batch that is cut short has whole curves."""
    point = configuration.load_point
    return point.workload.input_tokens + point.workload.output_tokens, point.workload.name, point.concurrency or 0


def partition_key(deployment: Deployment, workload: str | None, number: int) -> str:
    """`model__quantization__framework__[workload__]<first 8 of the deployment id>-<number>`.

    Safe for files, URLs and Kubernetes labels, which end at 63 characters: a longer model id is cut, the deployment id tells it apart.
    """
    version = deployment.model_version
    middle = f"__{version.quantization}__{deployment.framework}__" + (f"{workload}__" if workload else "")
    tail = f"{middle}{deployment.deployment_id[:8]}-{number}"
    return version.model_id[: KUBERNETES_LABEL_LENGTH - len(tail)] + tail
