"""Objects other than pods, and the parts of the API that all of them share."""

from __future__ import annotations

import base64

import pytest
from kubernetes.client import ApisApi, V1DeleteOptions, VersionApi
from kubernetes.client.rest import ApiException

from tests.integration.kubernetes_api.support import POLITE, assert_valid, container, create, pod, raw, read
from tests.kubernetes_api.cluster import NAMESPACE, FakeCluster


def test_config_maps_and_secrets_are_stored_changed_and_deleted(cluster: FakeCluster) -> None:
    core = cluster.core()
    core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": "job"}, "data": {"a": "1"}})
    core.patch_namespaced_config_map("job", NAMESPACE, {"data": {"b": "2"}})
    assert core.read_namespaced_config_map("job", NAMESPACE).data == {"a": "1", "b": "2"}
    core.create_namespaced_secret(NAMESPACE, {"metadata": {"name": "hub"}, "stringData": {"token": "hf"}})
    secret = core.read_namespaced_secret("hub", NAMESPACE)
    assert (secret.type, secret.data, secret.string_data) == ("Opaque", {"token": base64.b64encode(b"hf").decode()}, None)
    answer = core.delete_namespaced_secret("hub", NAMESPACE)
    assert (answer.status, answer.details.name) == ("Success", "hub")
    with pytest.raises(ApiException) as caught:
        core.read_namespaced_secret("hub", NAMESPACE)
    assert 'secrets \\"hub\\" not found' in caught.value.body
    assert [item.metadata.name for item in core.list_namespaced_config_map(NAMESPACE).items] == ["job"]


def test_a_job_owns_what_names_it(cluster: FakeCluster) -> None:
    template = {"spec": {"restartPolicy": "Never", "containers": [container("true")]}}
    job = cluster.batch().create_namespaced_job(NAMESPACE, {"metadata": {"name": "run"}, "spec": {"template": template}})
    assert_valid(cluster, raw(cluster, "/apis/batch/v1/namespaces/default/jobs/run"))
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "run", "uid": job.metadata.uid}
    owned = {"metadata": {"name": "owned", "ownerReferences": [owner]}}
    cluster.core().create_namespaced_config_map(NAMESPACE, owned)
    answer = cluster.batch().delete_namespaced_job("run", NAMESPACE, body=V1DeleteOptions(propagation_policy="Background"))
    assert answer.status == "Success"
    assert cluster.core().list_namespaced_config_map(NAMESPACE).items == []


def test_owners_are_merged_by_their_uid(cluster: FakeCluster) -> None:
    core = cluster.core()
    uids = [core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": name}}).metadata.uid for name in ("old", "new")]
    create(cluster, pod("adopted", container(POLITE)))
    for name, uid in zip(("old", "new"), uids, strict=True):
        owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid}
        core.patch_namespaced_pod("adopted", NAMESPACE, {"metadata": {"ownerReferences": [owner]}})
    assert [owner.uid for owner in read(cluster, "adopted").metadata.owner_references] == uids
    removal = {"metadata": {"ownerReferences": [{"uid": uids[0], "$patch": "delete"}]}}
    core.patch_namespaced_pod("adopted", NAMESPACE, removal)
    assert [owner.uid for owner in read(cluster, "adopted").metadata.owner_references] == uids[1:]


def test_a_change_on_an_old_version_is_a_conflict(cluster: FakeCluster) -> None:
    core = cluster.core()
    first = core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": "job"}, "data": {"a": "1"}})
    first.data = {"a": "2"}
    core.replace_namespaced_config_map("job", NAMESPACE, first)
    first.data = {"a": "3"}
    with pytest.raises(ApiException) as caught:
        core.replace_namespaced_config_map("job", NAMESPACE, first)
    assert caught.value.status == 409
    assert "the object has been modified; please apply your changes to the latest version and try again" in caught.value.body


def test_a_pods_status_can_be_patched_on_its_own(cluster: FakeCluster) -> None:
    create(cluster, pod("waits", container(POLITE), nodeSelector={"gpu": "none"}))
    condition = {"type": "dyno.dev/Claimed", "status": "True", "reason": "Run7"}
    cluster.core().patch_namespaced_pod_status("waits", NAMESPACE, {"status": {"conditions": [condition]}})
    cluster.core().patch_namespaced_pod("waits", NAMESPACE, {"status": {"phase": "Succeeded"}})  # not here
    status = read(cluster, "waits").status
    assert status.phase == "Pending"
    assert {each.type for each in status.conditions} == {"PodScheduled", "dyno.dev/Claimed"}


def test_clients_that_ask_what_there_is_get_an_answer(cluster: FakeCluster) -> None:
    client = cluster.core().api_client
    assert VersionApi(client).get_code().git_version == "v1.36.0+fake"
    assert [group.name for group in ApisApi(client).get_api_versions().groups] == ["batch"]
    assert {resource.name for resource in cluster.core().get_api_resources().resources} >= {"pods", "pods/log", "pods/eviction", "events"}
