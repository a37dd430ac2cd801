"""Every fault, seen through the real client in the shape that a real cluster gives it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import kubernetes.watch
import pytest
import urllib3
from kubernetes.client.rest import ApiException

from tests.deadlines import eventually
from tests.integration.kubernetes_api.support import (
    IMAGES,
    POLITE,
    STUBBORN,
    Pod,
    assert_valid,
    condition,
    container,
    create,
    events,
    gone,
    in_phase,
    log,
    pod,
    raw,
    read,
    running,
    terminated,
    when,
)
from tests.kubernetes_api.cluster import NAMESPACE, FakeCluster, running_cluster
from tests.kubernetes_api.spec import ClusterSpec, NodeSpec

SHUTDOWN = "Pod was terminated in response to imminent node shutdown."


@pytest.fixture
def two_nodes(tmp_path: Path) -> Iterator[FakeCluster]:
    """A node to lose and another."""
    with running_cluster(ClusterSpec(nodes=(NodeSpec("spot"), NodeSpec("stable")), images=IMAGES), tmp_path) as cluster:
        yield cluster


def last_seen(cluster: FakeCluster, name: str, act: Callable[[], None]) -> Pod:
    """The pod as the DELETED event of a watch shows it, after `act`."""
    core = cluster.core()
    version = read(cluster, name).metadata.resource_version
    act()
    gone(cluster, name)
    stream = kubernetes.watch.Watch().stream(
        core.list_namespaced_pod, NAMESPACE, field_selector=f"metadata.name={name}", resource_version=version, timeout_seconds=1
    )
    seen = list(stream)
    assert seen[-1]["type"] == "DELETED"
    return seen[-1]["object"]


def waits_for(reason: str, found: Pod) -> bool:
    """Whether the container waits for this reason."""
    statuses = found.status.container_statuses
    return bool(statuses) and statuses[0].state.waiting.reason == reason


def disruption(found: Pod) -> tuple[str, str, str]:
    """Of the condition that says so."""
    disrupted = condition(found, "DisruptionTarget")
    assert disrupted is not None
    return disrupted.status, disrupted.reason, disrupted.message


def test_a_preempted_pod_is_told_and_given_its_grace_period(cluster: FakeCluster) -> None:
    create(cluster, pod("spot", container(POLITE)))
    running(cluster, "spot")
    found = last_seen(cluster, "spot", lambda: cluster.preempt("spot"))
    assert disruption(found) == ("True", "PreemptionByScheduler", "default-scheduler: preempting to accommodate a higher priority pod")
    assert found.metadata.deletion_grace_period_seconds == 5
    assert terminated(found).exit_code == 0
    assert ("Preempted", "Preempted by pod high-priority on node node-1") in events(cluster, "spot")


def test_a_preempted_pod_that_does_not_listen_is_killed(cluster: FakeCluster) -> None:
    create(cluster, pod("spot", container(STUBBORN), terminationGracePeriodSeconds=1))
    running(cluster, "spot")
    found = last_seen(cluster, "spot", lambda: cluster.preempt("spot"))
    assert (found.status.phase, terminated(found).exit_code) == ("Failed", 137)
    assert not cluster.processes()


def test_a_reclaimed_spot_pod_fails_with_the_shutdown_of_its_node_and_goes(cluster: FakeCluster) -> None:
    create(cluster, pod("spot", container(POLITE)))
    running(cluster, "spot")
    found = last_seen(cluster, "spot", lambda: cluster.reclaim("spot"))
    assert disruption(found) == ("True", "TerminationByKubelet", SHUTDOWN)
    assert (found.status.phase, found.status.reason, found.status.message) == ("Failed", "Terminated", SHUTDOWN)


def test_a_node_that_shuts_down_leaves_its_pods_as_failed(two_nodes: FakeCluster) -> None:
    create(two_nodes, pod("on-spot", container(POLITE)))
    assert running(two_nodes, "on-spot").spec.node_name == "spot"
    two_nodes.shut_down_node("spot")
    found = in_phase(two_nodes, "on-spot", "Failed")
    assert (found.status.reason, found.status.message) == ("Terminated", SHUTDOWN)
    assert disruption(found) == ("True", "TerminationByKubelet", SHUTDOWN)
    assert terminated(found).exit_code == 0
    create(two_nodes, pod("next", container("true")))
    assert in_phase(two_nodes, "next", "Succeeded").spec.node_name == "stable"


def test_a_lost_node_takes_its_pods_with_it(two_nodes: FakeCluster) -> None:
    create(two_nodes, pod("on-spot", container(STUBBORN)))
    running(two_nodes, "on-spot")
    found = last_seen(two_nodes, "on-spot", lambda: two_nodes.lose_node("spot"))
    assert found.status.phase == "Failed"
    assert disruption(found) == ("True", "DeletionByPodGC", "PodGC: node no longer exists")
    assert found.status.container_statuses[0].state.running is not None  # nobody was there to report its end
    eventually(lambda: not two_nodes.processes(), "its processes are dead")
    assert [node.metadata.name for node in two_nodes.core().list_node().items] == ["stable"]


@pytest.mark.parametrize("keep_running", [True, False])
def test_the_pods_of_a_node_out_of_reach_stay_terminating(two_nodes: FakeCluster, keep_running: bool) -> None:
    create(two_nodes, pod("on-spot", container(STUBBORN)))
    running(two_nodes, "on-spot")
    two_nodes.disconnect_node("spot", keep_running=keep_running)
    found = read(two_nodes, "on-spot")
    assert (found.status.phase, found.status.reason) == ("Running", "NodeLost")
    assert found.status.message == "Node spot which was running pod on-spot is unresponsive"
    assert disruption(found) == ("True", "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
    assert found.metadata.deletion_timestamp is not None
    if keep_running:
        assert two_nodes.processes()  # a worker that nobody sees any more, but that still writes
    else:
        eventually(lambda: not two_nodes.processes(), "its processes are dead")
    two_nodes.core().delete_namespaced_pod("on-spot", NAMESPACE, grace_period_seconds=0)
    gone(two_nodes, "on-spot")


def test_an_evicted_pod_stays_as_failed(cluster: FakeCluster) -> None:
    create(cluster, pod("hungry", container(POLITE)))
    running(cluster, "hungry")
    cluster.evict("hungry")
    found = in_phase(cluster, "hungry", "Failed")
    assert found.status.reason == "Evicted"
    assert found.status.message.startswith("The node was low on resource: memory.")
    assert disruption(found)[1] == "TerminationByKubelet"
    assert terminated(found)
    assert "Evicted" in {reason for reason, _ in events(cluster, "hungry")}
    assert_valid(cluster, raw(cluster, "/api/v1/namespaces/default/pods/hungry"))


def test_a_pod_evicted_before_it_began_has_no_container_status(cluster: FakeCluster) -> None:
    create(cluster, pod("early", {"name": "main", "image": "slow:1"}))
    when(cluster, "early", lambda each: each.status.container_statuses, "the kubelet has it")
    cluster.evict("early", with_statuses=False)
    found = in_phase(cluster, "early", "Failed")
    assert found.status.reason == "Evicted"
    assert found.status.container_statuses is None
    with pytest.raises(ApiException) as caught:
        log(cluster, "early")
    assert 'container \\"main\\" in pod \\"early\\" is not available' in caught.value.body


def test_a_node_under_pressure_rejects_pods(cluster: FakeCluster) -> None:
    cluster.pressure("node-1", "DiskPressure")
    create(cluster, pod("refused", container("true")))
    found = in_phase(cluster, "refused", "Failed")
    assert found.status.reason == "Evicted"
    assert found.status.message == "Pod was rejected: The node had condition: [DiskPressure]. "
    assert found.status.container_statuses is None
    cluster.pressure("node-1", None)
    create(cluster, pod("accepted", container("true")))
    in_phase(cluster, "accepted", "Succeeded")


def test_a_vanished_pod_is_not_found_and_its_processes_are_dead(cluster: FakeCluster) -> None:
    create(cluster, pod("here", container(STUBBORN)))
    running(cluster, "here")
    found = last_seen(cluster, "here", lambda: cluster.vanish("here"))
    assert found.status.phase == "Running"
    eventually(lambda: not cluster.processes(), "its processes are dead")


def test_an_image_that_cannot_be_pulled_backs_off_for_ever(cluster: FakeCluster) -> None:
    create(cluster, pod("typo", {"name": "main", "image": "ghcr.io/dyno/wroker:1"}))
    seen = set()
    for reason in ("ErrImagePull", "ImagePullBackOff", "ErrImagePull"):
        found = when(cluster, "typo", partial(waits_for, reason), reason)
        assert found.status.phase == "Pending"  # https://github.com/kubernetes/kubernetes/issues/66828
        seen.add(found.status.container_statuses[0].state.waiting.message)
    problem = 'failed to resolve reference "ghcr.io/dyno/wroker:1": ghcr.io/dyno/wroker:1: not found'
    assert seen == {problem, f'Back-off pulling image "ghcr.io/dyno/wroker:1": ErrImagePull: {problem}'}
    said = events(cluster, "typo")
    assert ("Failed", f'Failed to pull image "ghcr.io/dyno/wroker:1": {problem}') in said
    assert {("Failed", "Error: ErrImagePull"), ("Failed", "Error: ImagePullBackOff")} <= set(said)
    with pytest.raises(ApiException) as caught:
        log(cluster, "typo")
    assert "is waiting to start: " in caught.value.body
    cluster.core().delete_namespaced_pod("typo", NAMESPACE)
    gone(cluster, "typo")


def test_an_image_that_cannot_be_pulled_for_a_while_runs_in_the_end(cluster: FakeCluster) -> None:
    cluster.unpullable("busybox", attempts=2, message="toomanyrequests: You have reached your pull rate limit.")
    create(cluster, pod("late", container("echo made it")))
    in_phase(cluster, "late", "Succeeded")
    failures = [message for reason, message in events(cluster, "late") if reason == "Failed" and message.startswith("Failed to pull")]
    assert failures == ['Failed to pull image "busybox:1.36": toomanyrequests: You have reached your pull rate limit.']


def test_out_of_memory_is_137_with_its_reason(cluster: FakeCluster) -> None:
    create(cluster, pod("big", container(STUBBORN)))
    running(cluster, "big")
    cluster.oom_kill("big", "main")
    ended = terminated(in_phase(cluster, "big", "Failed"))
    assert (ended.exit_code, ended.reason) == (137, "OOMKilled")


def test_a_crash_is_128_and_its_signal(cluster: FakeCluster) -> None:
    create(cluster, pod("crashes", container(POLITE)))
    running(cluster, "crashes")
    cluster.signal("crashes", "main", signal.SIGSEGV)
    ended = terminated(in_phase(cluster, "crashes", "Failed"))
    assert (ended.exit_code, ended.reason) == (139, "Error")


@pytest.mark.parametrize(
    ("kind", "code", "reason"), [("500", 500, "InternalError"), ("503", 503, "ServiceUnavailable"), ("401", 401, "Unauthorized")]
)
def test_the_api_fails_for_a_while(cluster: FakeCluster, kind: str, code: int, reason: str) -> None:
    cluster.fail_requests(kind, count=2, methods=["GET"], path="/pods")  # type: ignore[arg-type]  # parametrized
    core = cluster.core()
    for _ in range(2):
        with pytest.raises(ApiException) as caught:
            core.list_namespaced_pod(NAMESPACE)
        assert caught.value.status == code
        assert f'"reason": "{reason}"' in caught.value.body
    assert core.list_namespaced_pod(NAMESPACE).items == []


def test_too_many_requests_says_when_to_come_back(cluster: FakeCluster) -> None:
    cluster.fail_requests("429", count=10, methods=["POST"], path="/pods$")
    core = cluster.core()
    core.api_client.rest_client.pool_manager.connection_pool_kw["retries"] = False  # urllib3 itself obeys Retry-After otherwise
    with pytest.raises(ApiException) as caught:
        core.create_namespaced_pod(NAMESPACE, pod("one", container("true")))
    assert (caught.value.status, caught.value.headers["Retry-After"]) == (429, "1")
    assert '"reason": "TooManyRequests"' in caught.value.body


def test_a_create_whose_answer_is_lost_has_happened(cluster: FakeCluster) -> None:
    cluster.fail_requests("reset", methods=["POST"], path="/pods$", after=True)
    with pytest.raises(urllib3.exceptions.HTTPError):
        create(cluster, pod("one", container("true")))
    in_phase(cluster, "one", "Succeeded")
    with pytest.raises(ApiException) as caught:
        create(cluster, pod("one", container("true")))
    assert caught.value.status == 409


def test_a_create_that_is_cut_off_before_has_not_happened(cluster: FakeCluster) -> None:
    cluster.fail_requests("reset", methods=["POST"], path="/pods$")
    with pytest.raises(urllib3.exceptions.HTTPError):
        create(cluster, pod("one", container("true")))
    gone(cluster, "one")


def test_a_dropped_watch_is_taken_up_where_it_ended(cluster: FakeCluster) -> None:
    core = cluster.core()
    version = core.list_namespaced_pod(NAMESPACE).metadata.resource_version
    create(cluster, pod("one", container(POLITE)))
    seen = []
    watch = kubernetes.watch.Watch()
    for event in watch.stream(core.list_namespaced_pod, NAMESPACE, resource_version=version):
        seen.append((event["type"], event["object"].metadata.name))
        if len(seen) == 1:
            assert cluster.drop_streams("watch") == 1
            create(cluster, pod("two", container(POLITE)))
        if ("ADDED", "two") in seen:
            watch.stop()
    assert [name for kind, name in seen if kind == "ADDED"] == ["one", "two"]


def test_a_log_cut_off_in_the_middle_can_be_followed_again(cluster: FakeCluster) -> None:
    create(cluster, pod("talks", container("echo hello; sleep 1; echo end")))
    running(cluster, "talks")
    answer = cluster.core().read_namespaced_pod_log("talks", NAMESPACE, follow=True, _preload_content=False)
    eventually(lambda: cluster.drop_streams("log", reset=True), "the log is followed")
    with pytest.raises(urllib3.exceptions.HTTPError):
        b"".join(answer.stream())
    again = cluster.core().read_namespaced_pod_log("talks", NAMESPACE, follow=True, _preload_content=False)
    assert b"".join(again.stream()) == b"hello\nend\n"
