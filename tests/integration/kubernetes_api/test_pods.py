"""Pods through the real client: create, watch, read, delete, and what the kubelet makes of them."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import kubernetes.watch
import psutil
import pytest
from kubernetes.client import V1DeleteOptions, V1Preconditions
from kubernetes.client.rest import ApiException

from tests.deadlines import eventually
from tests.integration.kubernetes_api.support import (
    POLITE,
    SPEC,
    STUBBORN,
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


def test_a_watch_sees_a_pod_from_its_creation_to_its_end(cluster: FakeCluster) -> None:
    core = cluster.core()
    version = core.list_namespaced_pod(NAMESPACE).metadata.resource_version
    create(cluster, pod("once", container("echo one; echo two >&2")))
    in_phase(cluster, "once", "Succeeded")
    core.delete_namespaced_pod("once", NAMESPACE)
    seen = []
    watch = kubernetes.watch.Watch()
    for event in watch.stream(core.list_namespaced_pod, NAMESPACE, resource_version=version):
        seen.append((event["type"], event["object"].status.phase))
        if event["type"] == "DELETED":
            watch.stop()
    assert seen[0] == ("ADDED", "Pending")
    assert seen[-1] == ("DELETED", "Succeeded")
    phases = [phase for kind, phase in seen if kind == "MODIFIED"]
    assert phases == sorted(phases)  # Pending, Running, Succeeded: each phase only after the one before
    assert set(phases) == {"Pending", "Running", "Succeeded"}


def test_a_pod_that_succeeds_says_when_how_and_where(cluster: FakeCluster) -> None:
    create(cluster, pod("once", container("echo one; echo two >&2")))
    found = in_phase(cluster, "once", "Succeeded")
    ended = terminated(found)
    assert (ended.exit_code, ended.reason) == (0, "Completed")
    assert ended.container_id == found.status.container_statuses[0].container_id
    assert (found.spec.node_name, found.status.pod_ip, found.status.qos_class) == ("node-1", "127.0.0.1", "BestEffort")
    assert log(cluster, "once") == "one\ntwo\n"
    ready = condition(found, "Ready")
    assert ready is not None
    assert (ready.status, ready.reason) == ("False", "PodCompleted")
    assert [reason for reason, _ in events(cluster, "once")].count("Scheduled") == 1
    assert {reason for reason, _ in events(cluster, "once")} == {"Scheduled", "Pulling", "Pulled", "Created", "Started"}


@pytest.mark.parametrize(
    ("script", "exit_code", "reason", "phase"),
    [("exit 3", 3, "Error", "Failed"), ("kill -SEGV $$$$", 139, "Error", "Failed"), ("true", 0, "Completed", "Succeeded")],
)
def test_exit_codes_and_signals_are_told_apart(cluster: FakeCluster, script: str, exit_code: int, reason: str, phase: str) -> None:
    create(cluster, pod("ends", container(script)))
    ended = terminated(in_phase(cluster, "ends", "Succeeded", "Failed"))
    assert (ended.exit_code, ended.reason) == (exit_code, reason)
    assert read(cluster, "ends").status.phase == phase


def test_a_command_that_is_not_there_is_a_start_error(cluster: FakeCluster) -> None:
    create(cluster, pod("lost", {"name": "main", "image": "busybox", "command": ["no-such-program"]}))
    ended = terminated(in_phase(cluster, "lost", "Failed"))
    assert (ended.exit_code, ended.reason) == (128, "StartError")
    assert 'exec: "no-such-program": executable file not found in $PATH' in ended.message


def test_on_failure_restarts_until_it_succeeds(cluster: FakeCluster) -> None:
    script = "echo try; [ -e /work/second ] && exit 0; touch /work/second; exit 4"
    mounted = container(script, volumeMounts=[{"name": "work", "mountPath": "/work"}])
    create(cluster, pod("again", mounted, restartPolicy="OnFailure", volumes=[{"name": "work", "emptyDir": {}}]))
    status = in_phase(cluster, "again", "Succeeded").status.container_statuses[0]
    assert status.restart_count == 1
    assert status.last_state.terminated.exit_code == 4
    assert log(cluster, "again", previous=True) == "try\n"


def test_a_container_that_always_fails_backs_off(cluster: FakeCluster) -> None:
    create(cluster, pod("loop", container("echo no; exit 1"), restartPolicy="OnFailure"))
    found = when(
        cluster,
        "loop",
        lambda each: (
            each.status.container_statuses[0].state.waiting and each.status.container_statuses[0].state.waiting.reason == "CrashLoopBackOff"
        ),
        "CrashLoopBackOff",
    )
    assert found.status.phase == "Running"  # as a real one is: getPhase in pkg/kubelet/kubelet_pods.go
    assert (
        f"restarting failed container=main pod=loop_default({found.metadata.uid})"
        in found.status.container_statuses[0].state.waiting.message
    )
    assert "BackOff" in {reason for reason, _ in events(cluster, "loop")}


def test_the_deadline_ends_a_pod(cluster: FakeCluster) -> None:
    create(cluster, pod("late", container(POLITE), activeDeadlineSeconds=1))
    found = in_phase(cluster, "late", "Failed")
    assert found.status.reason == "DeadlineExceeded"
    assert found.status.message == "Pod was active on the node longer than the specified deadline"
    assert terminated(found).exit_code == 0  # it was asked politely


def test_a_termination_message_is_the_file_or_the_end_of_the_log(cluster: FakeCluster) -> None:
    said = container("echo out of memory > /dev/termination-log; exit 5", "said")
    silent = container("echo last words; exit 6", "silent", terminationMessagePolicy="FallbackToLogsOnError")
    create(cluster, pod("words", said, silent))
    found = in_phase(cluster, "words", "Failed")
    assert terminated(found, "said").message == "out of memory\n"
    assert terminated(found, "silent").message == "last words\n"


def test_a_taken_name_is_409_and_a_generated_name_is_new(cluster: FakeCluster) -> None:
    create(cluster, pod("one", container("true")))
    with pytest.raises(ApiException) as caught:
        create(cluster, pod("one", container("true")))
    assert (caught.value.status, caught.value.reason) == (409, "Conflict")
    assert '"reason": "AlreadyExists"' in caught.value.body
    assert 'pods \\"one\\" already exists' in caught.value.body
    body = pod("", container("true"))
    body["metadata"] = {"generateName": "batch-"}
    names = {create(cluster, body).metadata.name for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("batch-") and len(name) == len("batch-") + 5 for name in names)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gpus": 4}, "gpus"),
        ({"restartPolicy": "Sometimes"}, 'Unsupported value: "Sometimes"'),
        ({"activeDeadlineSeconds": 0}, "must be between 1 and 2147483647"),
        ({"containers": [container("true", volumeMounts=[{"name": "x", "mountPath": "/x"}])]}, 'Not found: "x"'),
        ({"containers": [container("true", resources={"limits": {"nvidia.com/gpu": "500m"}})]}, "must be an integer"),
        ({"containers": [container("true"), container("true")]}, 'Duplicate value: "main"'),
    ],
)
def test_a_pod_that_is_none_is_422(cluster: FakeCluster, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ApiException) as caught:
        create(cluster, pod("bad", container("true"), **change))
    assert caught.value.status == 422
    assert said.replace('"', '\\"') in caught.value.body
    assert '"reason": "Invalid"' in caught.value.body


def test_what_the_fake_does_not_have_is_refused_and_not_ignored(cluster: FakeCluster) -> None:
    with pytest.raises(ApiException) as caught:
        create(cluster, pod("host", container("true"), volumes=[{"name": "x", "hostPath": {"path": "/"}}]))
    assert caught.value.status == 501


def test_lists_follow_their_selectors(cluster: FakeCluster) -> None:
    create(cluster, pod("done", container("true"), labels={"app": "dyno", "tier": "spot"}))
    create(cluster, pod("waits", container(POLITE), labels={"app": "dyno", "tier": "on-demand"}))
    create(cluster, pod("other", container("true")))
    in_phase(cluster, "done", "Succeeded")
    running(cluster, "waits")

    def names(**selectors: str) -> list[str]:
        return [item.metadata.name for item in cluster.core().list_namespaced_pod(NAMESPACE, **selectors).items]

    assert names(label_selector="app=dyno") == ["done", "waits"]
    assert names(label_selector="app=dyno,tier!=spot") == ["waits"]
    assert names(label_selector="tier in (spot, on-demand),app") == ["done", "waits"]
    assert names(label_selector="!app") == ["other"]
    assert names(field_selector="metadata.name=waits") == ["waits"]
    assert names(field_selector="status.phase!=Succeeded,spec.nodeName=node-1", label_selector="app") == ["waits"]
    with pytest.raises(ApiException) as caught:
        names(field_selector="spec.color=red")
    assert caught.value.status == 400
    assert "field label not supported: spec.color" in caught.value.body


def test_a_watch_shows_objects_come_into_and_leave_its_selector(cluster: FakeCluster) -> None:
    core = cluster.core()
    version = create(cluster, pod("moves", container(POLITE))).metadata.resource_version
    core.patch_namespaced_pod("moves", NAMESPACE, {"metadata": {"labels": {"state": "claimed"}}})
    core.patch_namespaced_pod("moves", NAMESPACE, {"metadata": {"labels": {"state": None}}})
    stream = kubernetes.watch.Watch().stream(
        core.list_namespaced_pod, NAMESPACE, label_selector="state=claimed", resource_version=version, timeout_seconds=1
    )
    kinds = [event["type"] for event in stream]
    assert (kinds[0], kinds[-1]) == ("ADDED", "DELETED")


def test_a_watch_ends_at_its_timeout_and_too_old_versions_are_gone(cluster: FakeCluster) -> None:
    core = cluster.core()
    version = core.list_namespaced_pod(NAMESPACE).metadata.resource_version
    assert list(kubernetes.watch.Watch().stream(core.list_namespaced_pod, NAMESPACE, resource_version=version, timeout_seconds=1)) == []
    create(cluster, pod("one", container("true")))
    cluster.compact()
    with pytest.raises(ApiException) as caught:
        list(kubernetes.watch.Watch().stream(core.list_namespaced_pod, NAMESPACE, resource_version=version, timeout_seconds=5))
    assert caught.value.status == 410
    assert "too old resource version" in caught.value.reason


def test_logs_are_followed_to_the_end_and_cut_as_asked(cluster: FakeCluster) -> None:
    create(cluster, pod("talks", container("for i in 1 2 3 4; do echo line $i; sleep 0.2; done; printf end")))
    when(cluster, "talks", lambda each: each.status.phase != "Pending", "started")
    answer = cluster.core().read_namespaced_pod_log("talks", NAMESPACE, follow=True, _preload_content=False)
    assert b"".join(answer.stream()) == b"line 1\nline 2\nline 3\nline 4\nend"
    assert log(cluster, "talks", tail_lines=2) == "line 4\nend"
    assert log(cluster, "talks", limit_bytes=9) == "line 1\nli"
    stamps = [line.split(" ")[0] for line in log(cluster, "talks", timestamps=True).splitlines()]
    assert stamps == sorted(set(stamps))
    assert {len(stamp) for stamp in stamps} == {len("2026-11-21T12:00:00.123456789Z")}  # of one length: Dagster's reader relies on it


def test_the_log_of_a_waiting_container_is_400_with_the_reason(cluster: FakeCluster) -> None:
    create(cluster, pod("slow", {"name": "main", "image": "slow:1"}))
    when(cluster, "slow", lambda each: each.status.container_statuses, "has statuses")
    with pytest.raises(ApiException) as caught:
        log(cluster, "slow")
    assert caught.value.status == 400
    assert 'container \\"main\\" in pod \\"slow\\" is waiting to start: ContainerCreating' in caught.value.body


def test_the_log_of_one_of_several_containers_needs_its_name(cluster: FakeCluster) -> None:
    create(cluster, pod("two", container("echo a", "a"), container("echo b", "b"), initContainers=[container("echo i", "i")]))
    in_phase(cluster, "two", "Succeeded")
    assert log(cluster, "two", container="b") == "b\n"
    assert log(cluster, "two", container="i") == "i\n"
    with pytest.raises(ApiException) as caught:
        log(cluster, "two")
    assert "a container name must be specified for pod two, choose one of: [a b] or one of the init containers: [i]" in caught.value.body
    with pytest.raises(ApiException) as caught:
        log(cluster, "two", container="c")
    assert "container c is not valid for pod two" in caught.value.body


def test_a_deleted_pod_gets_sigterm_and_goes_when_its_containers_have_ended(cluster: FakeCluster) -> None:
    create(cluster, pod("asked", container(POLITE)))
    running(cluster, "asked")
    follower = cluster.core().read_namespaced_pod_log("asked", NAMESPACE, follow=True, _preload_content=False)
    answer = cluster.core().delete_namespaced_pod("asked", NAMESPACE)
    assert answer.metadata.deletion_timestamp is not None
    assert answer.metadata.deletion_grace_period_seconds == 5
    assert b"".join(follower.stream()) == b"hello\nbye\n"
    gone(cluster, "asked")
    assert ("Killing", "Stopping container main") in events(cluster, "asked")
    assert not cluster.processes()


def test_a_pod_that_does_not_go_is_killed_when_its_grace_period_is_over(cluster: FakeCluster) -> None:
    core = cluster.core()
    version = create(cluster, pod("stays", container(STUBBORN))).metadata.resource_version
    running(cluster, "stays")
    core.delete_namespaced_pod("stays", NAMESPACE, grace_period_seconds=1)
    gone(cluster, "stays")
    stream = kubernetes.watch.Watch().stream(core.list_namespaced_pod, NAMESPACE, resource_version=version, timeout_seconds=1)
    last = [event["object"] for event in stream][-1]
    assert (last.status.phase, terminated(last).exit_code, terminated(last).reason) == ("Failed", 137, "Error")
    assert not cluster.processes()


def test_everything_that_a_container_started_ends_with_it(cluster: FakeCluster) -> None:
    create(cluster, pod("parent", container("setsid sleep 600 & echo hello; sleep 0.3")))
    in_phase(cluster, "parent", "Succeeded")
    assert not cluster.processes()


def test_a_delete_with_the_uid_of_another_pod_is_refused(cluster: FakeCluster) -> None:
    create(cluster, pod("mine", container(POLITE)))
    options = V1DeleteOptions(preconditions=V1Preconditions(uid="another"))
    with pytest.raises(ApiException) as caught:
        cluster.core().delete_namespaced_pod("mine", NAMESPACE, body=options)
    assert caught.value.status == 409
    assert "Precondition failed: the UID in the precondition (another)" in caught.value.body


def test_metadata_can_be_patched_and_the_spec_cannot(cluster: FakeCluster) -> None:
    core = cluster.core()
    created = create(cluster, pod("patched", container(POLITE), labels={"keep": "me"}))
    metadata = {"labels": {"run": "7"}, "annotations": {"dyno/claimed-by": "run-7"}, "finalizers": None}
    patched = core.patch_namespaced_pod("patched", NAMESPACE, {"metadata": metadata})
    assert patched.metadata.labels == {"keep": "me", "run": "7"}
    assert patched.metadata.annotations == {"dyno/claimed-by": "run-7"}
    assert int(patched.metadata.resource_version) > int(created.metadata.resource_version)
    with pytest.raises(ApiException) as caught:
        core.patch_namespaced_pod("patched", NAMESPACE, {"spec": {"nodeSelector": {"gpu": "h100"}}})
    assert caught.value.status == 422
    assert "pod updates may not change fields other than" in caught.value.body


def test_what_an_object_owns_goes_with_it_unless_it_is_orphaned(cluster: FakeCluster) -> None:
    core = cluster.core()

    def owner_of(name: str) -> str:
        uid: str = core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": name}}).metadata.uid
        body = pod(f"{name}-pod", container(POLITE))
        body["metadata"]["ownerReferences"] = [{"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid}]
        create(cluster, body)
        running(cluster, f"{name}-pod")
        return name

    core.delete_namespaced_config_map(owner_of("first"), NAMESPACE, propagation_policy="Background")
    gone(cluster, "first-pod")
    core.delete_namespaced_config_map(owner_of("second"), NAMESPACE, propagation_policy="Orphan")
    assert read(cluster, "second-pod").metadata.owner_references is None
    absent = pod("absent", container(POLITE))
    absent["metadata"]["ownerReferences"] = [{"apiVersion": "v1", "kind": "ConfigMap", "name": "never", "uid": "none"}]
    create(cluster, absent)
    gone(cluster, "absent")


def test_config_secrets_and_fields_reach_the_container(cluster: FakeCluster, tmp_path: Path) -> None:
    core = cluster.core()
    core.create_namespaced_secret(NAMESPACE, {"metadata": {"name": "hub"}, "stringData": {"token": "hf_secret"}})
    core.create_namespaced_config_map(
        NAMESPACE, {"metadata": {"name": "job"}, "data": {"job.json": '{"model": "/models/a"}', "LEVEL": "3"}}
    )
    script = "env | sort; cat /etc/job/job.json; echo; cat /run/secrets/hub/token; echo; echo '$(POD)-$(LEVEL)-$$(LEVEL)'"
    env = [
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}},
        {"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "job", "key": "LEVEL"}}},
        {"name": "GREETING", "value": "level $(LEVEL)"},
    ]
    mounts = [
        {"name": "job", "mountPath": "/etc/job"},
        {"name": "hub", "mountPath": "/run/secrets/hub"},
        {"name": "models", "mountPath": "/models"},
    ]
    volumes = [
        {"name": "job", "configMap": {"name": "job"}},
        {"name": "hub", "secret": {"secretName": "hub"}},
        {"name": "models", "emptyDir": {}},
    ]
    body = pod("reads", container(script, env=env, volumeMounts=mounts), labels={"app": "dyno"}, volumes=volumes)
    create(cluster, body)
    in_phase(cluster, "reads", "Succeeded")
    said = log(cluster, "reads")
    for line in ("APP=dyno", "GREETING=level 3", "HF_TOKEN=hf_secret", "POD=reads", "HOSTNAME=reads", "hf_secret", "reads-3-$(LEVEL)"):
        assert line in said.splitlines()
    assert f'{{"model": "{cluster.folder}' in said  # the path of the mounted volume, seen from this process
    assert str(tmp_path) not in said.replace(str(cluster.folder), "")


def test_a_missing_secret_holds_the_container_back_until_it_is_there(cluster: FakeCluster) -> None:
    env = [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}]
    create(cluster, pod("needs", container("echo $HF_TOKEN", env=env)))
    found = when(
        cluster,
        "needs",
        lambda each: (
            each.status.container_statuses
            and each.status.container_statuses[0].state.waiting
            and each.status.container_statuses[0].state.waiting.reason == "CreateContainerConfigError"
        ),
        "CreateContainerConfigError",
    )
    assert found.status.container_statuses[0].state.waiting.message == 'secret "hub" not found'
    cluster.core().create_namespaced_secret(NAMESPACE, {"metadata": {"name": "hub"}, "stringData": {"token": "hf_late"}})
    in_phase(cluster, "needs", "Succeeded")
    assert log(cluster, "needs") == "hf_late\n"


def test_what_the_server_sends_is_valid_kubernetes(cluster: FakeCluster) -> None:
    create(cluster, pod("ends", container("exit 1"), initContainers=[container("true", "init")]))
    create(cluster, pod("runs", container(POLITE, resources={"limits": {"cpu": "1", "memory": "1Gi"}})))
    create(cluster, pod("never", {"name": "main", "image": "not-there"}))
    create(cluster, pod("nowhere", container("true"), nodeSelector={"gpu": "none"}))
    in_phase(cluster, "ends", "Failed")
    running(cluster, "runs")
    eventually(lambda: any(reason == "BackOff" for reason, _ in events(cluster, "never")), "a pull has failed")
    for name in ("ends", "runs", "never", "nowhere"):
        assert_valid(cluster, raw(cluster, f"/api/v1/namespaces/default/pods/{name}"))
    for path in ("/api/v1/namespaces/default/pods", "/api/v1/namespaces/default/events", "/api/v1/nodes", "/api/v1/namespaces"):
        listed = raw(cluster, path)
        assert listed["items"]
        assert_valid(cluster, listed)


def test_a_request_without_the_token_is_401_and_an_unknown_namespace_is_404(cluster: FakeCluster) -> None:
    core = cluster.core()
    with pytest.raises(ApiException) as caught:
        core.create_namespaced_pod("elsewhere", pod("one", container("true")))
    assert 'namespaces \\"elsewhere\\" not found' in caught.value.body
    core.api_client.configuration.api_key = {}
    with pytest.raises(ApiException) as caught:
        core.list_namespaced_pod(NAMESPACE)
    assert caught.value.status == 401


def test_an_eviction_is_a_delete_with_a_reason(cluster: FakeCluster) -> None:
    core = cluster.core()
    version = create(cluster, pod("drained", container(POLITE))).metadata.resource_version
    running(cluster, "drained")
    core.create_namespaced_pod_eviction("drained", NAMESPACE, {"metadata": {"name": "drained", "namespace": NAMESPACE}})
    gone(cluster, "drained")
    stream = kubernetes.watch.Watch().stream(core.list_namespaced_pod, NAMESPACE, resource_version=version, timeout_seconds=1)
    disrupted = condition([event["object"] for event in stream][-1], "DisruptionTarget")
    assert disrupted is not None
    assert (disrupted.reason, disrupted.message) == ("EvictionByEvictionAPI", "Eviction API: evicting")


def test_no_process_outlives_the_cluster(tmp_path: Path) -> None:
    with running_cluster(SPEC, tmp_path) as first:
        create(first, pod("stays", container(STUBBORN)))
        running(first, "stays")
        assert first.processes()
    assert not first.processes()
    with running_cluster(SPEC, tmp_path) as second:
        create(second, pod("stays", container(STUBBORN)))
        running(second, "stays")
        [server] = [each for each in psutil.process_iter(["cmdline"]) if str(second.folder) in (each.info["cmdline"] or [])]
        server.send_signal(signal.SIGKILL)
        eventually(lambda: all("sh" not in process.name() for process in second.processes()), "the container's shell has died with it")
    assert not second.processes()
