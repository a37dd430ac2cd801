"""Init containers and native sidecars: https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from assets.benchmark.engines.process import free_port
from tests.deadlines import eventually
from tests.integration.kubernetes_api.support import (
    POLITE,
    condition,
    container,
    create,
    events,
    gone,
    in_phase,
    log,
    pod,
    read,
    terminated,
    when,
)
from tests.kubernetes_api.cluster import NAMESPACE, FakeCluster, project_image, running_cluster
from tests.kubernetes_api.spec import ClusterSpec, ImageSpec

FETCH: Final = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).status)"


@pytest.fixture
def spec() -> ClusterSpec:
    """With an image that has Python."""
    return ClusterSpec(images=(ImageSpec("busybox"), project_image("python")))


def sidecar(port: int, name: str = "engine", script: str = "", failure_threshold: int = 30) -> dict[str, Any]:
    """A server that is up after half a second, as an engine beside its worker."""
    start = f"sleep 0.5; exec python -m http.server {port} --bind 127.0.0.1"
    return {
        "name": name,
        "image": "python:3",
        "command": ["sh", "-c", script or start],
        "restartPolicy": "Always",
        "startupProbe": {"httpGet": {"path": "/", "port": port}, "periodSeconds": 1, "failureThreshold": failure_threshold},
    }


def test_init_containers_run_in_order_before_the_containers(cluster: FakeCluster) -> None:
    mounts = [{"name": "work", "mountPath": "/work"}]
    parts = [container(f"echo {name} >> /work/order", name, volumeMounts=mounts) for name in ("first", "second")]
    main = container("cat /work/order", volumeMounts=mounts)
    create(cluster, pod("ordered", main, initContainers=parts, volumes=[{"name": "work", "emptyDir": {}}]))
    found = in_phase(cluster, "ordered", "Succeeded")
    assert log(cluster, "ordered") == "first\nsecond\n"
    assert [status.ready for status in found.status.init_container_statuses] == [True, True]


def test_a_failed_init_container_fails_the_pod_and_nothing_else_starts(cluster: FakeCluster) -> None:
    create(cluster, pod("blocked", container("echo never"), initContainers=[container("exit 9", "init")]))
    found = in_phase(cluster, "blocked", "Failed")
    assert terminated(found, "init").exit_code == 9
    assert found.status.container_statuses[0].state.waiting.reason == "PodInitializing"
    initialized = condition(found, "Initialized")
    assert initialized is not None
    assert (initialized.status, initialized.message) == ("False", "containers with incomplete status: [init]")


def test_a_sidecar_is_up_before_the_main_container_and_ends_after_it(spec: ClusterSpec, tmp_path: Path) -> None:
    port = free_port()
    main = {"name": "main", "image": "python:3", "command": ["python", "-c", FETCH, f"http://127.0.0.1:{port}/"]}
    with running_cluster(spec, tmp_path) as cluster:
        create(cluster, pod("pair", main, initContainers=[sidecar(port)]))
        waits = when(cluster, "pair", lambda each: each.status.init_container_statuses[0].state.running, "the sidecar runs")
        assert waits.status.phase == "Pending"
        assert waits.status.container_statuses[0].state.waiting.reason == "PodInitializing"
        found = in_phase(cluster, "pair", "Succeeded")
        assert log(cluster, "pair", container="main") == "200\n"
        engine = terminated(found, "engine")
        assert (engine.exit_code, engine.reason) == (143, "Error")  # SIGTERM; a sidecar's exit code does not count
        assert terminated(found).finished_at <= engine.finished_at
        assert not cluster.processes()


def test_a_failed_main_container_fails_the_pod_whatever_its_sidecar_says(spec: ClusterSpec, tmp_path: Path) -> None:
    with running_cluster(spec, tmp_path) as cluster:
        create(cluster, pod("pair", container("exit 7"), initContainers=[container(POLITE, "engine", restartPolicy="Always")]))
        found = in_phase(cluster, "pair", "Failed")
        assert terminated(found).exit_code == 7
        assert terminated(found, "engine").exit_code == 0


def test_a_sidecar_that_crashes_is_restarted_beside_the_main_container(cluster: FakeCluster) -> None:
    mounts = [{"name": "work", "mountPath": "/work"}]
    engine = container(f"echo start >> /work/starts; {POLITE}", "engine", restartPolicy="Always", volumeMounts=mounts)
    main = container("until [ $(wc -l < /work/starts) = 2 ]; do sleep 0.1; done", volumeMounts=mounts)
    create(cluster, pod("pair", main, initContainers=[engine], volumes=[{"name": "work", "emptyDir": {}}]))
    when(cluster, "pair", lambda each: each.status.phase == "Running", "runs")
    eventually(lambda: "hello" in log(cluster, "pair", container="engine"), "the engine has begun")
    cluster.signal("pair", "engine", 11)
    found = in_phase(cluster, "pair", "Succeeded")
    [status] = found.status.init_container_statuses
    assert (status.restart_count, status.last_state.terminated.exit_code) == (1, 139)


def test_a_sidecar_that_is_never_healthy_is_restarted_and_the_pod_stays_pending(spec: ClusterSpec, tmp_path: Path) -> None:
    port = free_port()
    with running_cluster(spec, tmp_path) as cluster:
        engine = sidecar(port, script=POLITE, failure_threshold=2)
        create(cluster, pod("sick", container("echo never"), initContainers=[engine]))
        found = when(cluster, "sick", lambda each: each.status.init_container_statuses[0].restart_count > 0, "restarted")
        assert found.status.phase == "Pending"
        said = dict(events(cluster, "sick"))
        assert said["Unhealthy"].startswith(f'Startup probe failed: Get "http://127.0.0.1:{port}/"')
        assert said["Killing"] == "Container engine failed startup probe, will be restarted"
        cluster.core().delete_namespaced_pod("sick", NAMESPACE)
        gone(cluster, "sick")
        assert not cluster.processes()


def test_a_deleted_pod_ends_its_sidecars_last_and_in_reverse_order(cluster: FakeCluster) -> None:
    mounts = [{"name": "work", "mountPath": "/work"}]

    def says(name: str, **fields: Any) -> dict[str, Any]:
        script = f"trap 'echo {name} >> /work/ends; exit 0' TERM; echo hello; sleep 600 & wait"
        return container(script, name, volumeMounts=mounts, **fields)

    sidecars = [says(name, restartPolicy="Always") for name in ("one", "two")]
    claims = {"shared": str(cluster.folder / "shared")}
    (cluster.folder / "shared").mkdir()
    volumes = [{"name": "work", "persistentVolumeClaim": {"claimName": "shared"}}]
    with running_cluster(ClusterSpec(images=(ImageSpec("busybox"),), claims=claims), cluster.folder) as other:
        create(other, pod("trio", says("main"), initContainers=sidecars, volumes=volumes))
        for name in ("one", "two", "main"):
            eventually(partial(_has_said_hello, other, name), f"{name} runs")
        other.core().delete_namespaced_pod("trio", NAMESPACE)
        gone(other, "trio")
    assert (cluster.folder / "shared" / "ends").read_text().split() == ["main", "two", "one"]


def test_a_failed_init_container_ends_the_sidecar_before_it_for_good(cluster: FakeCluster) -> None:
    init = [container(POLITE, "engine", restartPolicy="Always"), container("sleep 0.3; exit 9", "init")]
    create(cluster, pod("blocked", container("echo never"), initContainers=init))
    found = in_phase(cluster, "blocked", "Failed")
    assert (terminated(found, "init").exit_code, terminated(found, "engine").exit_code) == (9, 0)
    assert found.status.init_container_statuses[0].restart_count == 0
    assert not cluster.processes()


def test_a_pod_deleted_while_it_initializes_asks_its_init_container(cluster: FakeCluster) -> None:
    create(cluster, pod("early", container("echo never"), initContainers=[container(POLITE, "init")], terminationGracePeriodSeconds=600))
    eventually(lambda: _init_runs(cluster, "early"), "the init container runs")
    cluster.core().delete_namespaced_pod("early", NAMESPACE)
    gone(cluster, "early")  # in far less than its grace period
    assert not cluster.processes()


def _init_runs(cluster: FakeCluster, name: str) -> bool:
    [status] = read(cluster, name).status.init_container_statuses or [None]
    return status is not None and status.state.running is not None and "hello" in log(cluster, name, container="init")


def _has_said_hello(cluster: FakeCluster, name: str) -> bool:
    statuses = [*(read(cluster, "trio").status.init_container_statuses or []), *(read(cluster, "trio").status.container_statuses or [])]
    started = any(each.name == name and each.state.running for each in statuses)
    return started and "hello" in log(cluster, "trio", container=name)
