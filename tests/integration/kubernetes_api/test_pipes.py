"""Dagster's own client for pods on the fake cluster: what works on a real one works here."""
# Dagster looks at the annotations of an asset's parameters: no `from __future__ import annotations` here.

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from dagster import AssetExecutionContext, MaterializeResult, asset, materialize
from dagster_k8s import PipesK8sClient

from tests.kubernetes_api.cluster import NAMESPACE, FakeCluster, project_image, running_cluster
from tests.kubernetes_api.spec import ClusterSpec

SCRIPT: Final = """
from dagster_pipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    pipes.log.info("measuring " + pipes.get_extra("model"))
    pipes.report_asset_materialization(metadata={"tokens": {"raw_value": 42, "type": "int"}})
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[FakeCluster]:
    """With the worker's image."""
    with running_cluster(ClusterSpec(images=(project_image("dyno/worker"),)), tmp_path) as found:
        yield found


def run(cluster: FakeCluster, script: str, *, keep: bool = False) -> MaterializeResult[object]:
    """Materialize an asset that is a pod which runs the script."""

    @asset
    def measured(context: AssetExecutionContext, pipes: PipesK8sClient) -> MaterializeResult[object]:
        invocation = pipes.run(
            context=context,
            image="dyno/worker:1",
            command=["python", "-c", script],
            namespace=NAMESPACE,
            extras={"model": "dyno-43m"},
            delete_pod_on_completion=not keep,
        )
        return invocation.get_materialize_result()

    client = PipesK8sClient(load_incluster_config=False, kubeconfig_file=str(cluster.kubeconfig), poll_interval=0.1)
    result = materialize([measured], resources={"pipes": client}, raise_on_error=False)
    if not result.success:
        [failure] = [event for event in result.all_events if event.is_step_failure]
        raise RuntimeError(failure.step_failure_data.error)
    [materialization] = result.asset_materializations_for_node("measured")
    return MaterializeResult(metadata=materialization.metadata)


def test_a_script_reports_its_result_through_the_logs_of_its_pod(cluster: FakeCluster) -> None:
    result = run(cluster, SCRIPT)
    assert result.metadata is not None
    assert result.metadata["tokens"].value == 42  # type: ignore[union-attr]  # a metadata value
    assert cluster.core().list_namespaced_pod(NAMESPACE).items == []
    assert not cluster.processes()


def test_a_script_that_fails_fails_the_run_with_its_last_words(cluster: FakeCluster) -> None:
    with pytest.raises(RuntimeError, match="the weights are corrupt"):
        run(cluster, "import sys; sys.exit('the weights are corrupt')")


def test_an_image_that_is_not_there_fails_the_run_at_once(cluster: FakeCluster) -> None:
    cluster.unpullable("dyno/worker")
    with pytest.raises(RuntimeError, match=r"ImagePullBackOff|ErrImagePull"):
        run(cluster, SCRIPT)
