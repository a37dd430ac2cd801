"""The manifests are valid, and a manifest that is broken in one place makes the check fail and say where."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from k8s import validate
from k8s.manifests import Document, ManifestError, kubectl, parse, read_files, render, selects, title
from k8s.rules import every_problem

ROOT = Path(__file__).resolve().parents[3]
BASE = ROOT / "k8s" / "base"
SECRETS = validate.documented_secrets((ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def base() -> list[Document]:
    return read_files(BASE)


def find(documents: list[Document], name: str) -> Any:
    return next(document for document in documents if title(document) == name)


def pod(documents: list[Document], name: str) -> Any:
    return find(documents, name)["spec"]["template"]["spec"]


def container(documents: list[Document], name: str) -> Any:
    return pod(documents, name)["containers"][0]


def policy(documents: list[Document], name: str) -> Any:
    return find(documents, f"NetworkPolicy/{name}")["spec"]


def test_the_shipped_manifests_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert validate.main([]) == 0
    assert validate.main(["--no-kubectl"]) == 0
    assert "k8s/base: " in capsys.readouterr().out


API, CODE = "Deployment/dyno-api", "Deployment/dyno-user-code"
BREAKS: list[tuple[str, Callable[[list[Document]], Any]]] = [
    ("the pod must set runAsNonRoot", lambda d: pod(d, API)["securityContext"].pop("runAsNonRoot")),
    ("the pod must set seccompProfile", lambda d: pod(d, API)["securityContext"].pop("seccompProfile")),
    ("hostNetwork is not allowed", lambda d: pod(d, API).update(hostNetwork=True)),
    ("is a hostPath", lambda d: pod(d, API)["volumes"].append({"name": "etc", "hostPath": {"path": "/etc"}})),
    ("allowPrivilegeEscalation must be false", lambda d: container(d, API)["securityContext"].pop("allowPrivilegeEscalation")),
    ("readOnlyRootFilesystem must be true", lambda d: container(d, API)["securityContext"].update(readOnlyRootFilesystem=False)),
    ("neither privileged nor root", lambda d: container(d, API)["securityContext"].update(runAsUser=0)),
    (
        "must drop ALL capabilities",
        lambda d: container(d, API)["securityContext"].update(capabilities={"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
    ),
    ("container dagster-home: readOnlyRootFilesystem", lambda d: pod(d, CODE)["initContainers"][0]["securityContext"].clear()),
    ("no requests.memory, limits.memory", lambda d: container(d, API).update(resources={"requests": {"cpu": 1}})),
    ("`dyno` is not pinned", lambda d: container(d, API).update(image="dyno")),
    ("`host:5000/dyno` is not pinned", lambda d: container(d, API).update(image="host:5000/dyno")),
    ("`dyno:latest` is not pinned", lambda d: container(d, API).update(image="dyno:latest")),
    ("ConfigMap dyno-other does not exist", lambda d: container(d, API)["envFrom"][0].update(configMapRef={"name": "dyno-other"})),
    (
        "Secret dyno-redis, key OTHER, is neither here nor documented",
        lambda d: container(d, API)["env"][1]["valueFrom"]["secretKeyRef"].update(key="OTHER"),
    ),
    (
        "Secret dyno-other is neither here nor documented",
        lambda d: container(d, API)["envFrom"].append({"secretRef": {"name": "dyno-other"}}),
    ),
    ("ServiceAccount dyno-other does not exist", lambda d: pod(d, API).update(serviceAccountName="dyno-other")),
    ("ServiceAccount default (none is set)", lambda d: pod(d, API).pop("serviceAccountName")),
    ("PersistentVolumeClaim dyno-state does not exist", lambda d: d.remove(find(d, "PersistentVolumeClaim/dyno-state"))),
    ("no volume tmp", lambda d: pod(d, API).pop("volumes")),
    (
        "does not match its own pods",
        lambda d: find(d, API)["spec"]["selector"]["matchLabels"].update({"app.kubernetes.io/name": "other"}),
    ),
    ("Service/dyno-api: selector", lambda d: find(d, "Service/dyno-api")["spec"].update(selector={"app": "other"})),
    (
        "PodDisruptionBudget/dyno-api: selector",
        lambda d: find(d, "PodDisruptionBudget/dyno-api")["spec"].update(selector={"matchLabels": {"app": "other"}}),
    ),
    ("NetworkPolicy/allow-redis: selector", lambda d: policy(d, "allow-redis").update(podSelector={"matchLabels": {"app": "other"}})),
    (
        "NetworkPolicy/dagster-to-user-code: selector",
        lambda d: policy(d, "dagster-to-user-code")["egress"][0]["to"][0].update(podSelector={"matchLabels": {"app": "other"}}),
    ),
    (
        "Service/dyno-api: Deployment/dyno-api has no port 8001",
        lambda d: find(d, "Service/dyno-api")["spec"]["ports"][0].update(targetPort=8001),
    ),
    ("no NetworkPolicy lets anything in at port 8000", lambda d: d.remove(find(d, "NetworkPolicy/api-from-labelled-namespaces"))),
    (
        "api-from-labelled-namespaces: Deployment/dyno-api has no port 80",
        lambda d: policy(d, "api-from-labelled-namespaces")["ingress"][0]["ports"][0].update(port=80),
    ),
    (
        "dagster-to-user-code: Deployment/dyno-user-code has no port 4001",
        lambda d: policy(d, "dagster-to-user-code")["egress"][0]["ports"][0].update(port=4001),
    ),
    ("readinessProbe asks port web", lambda d: container(d, API)["readinessProbe"]["httpGet"].update(port="web")),
    ("namespace other is not defined here", lambda d: find(d, "Service/dyno-api")["metadata"].update(namespace="other")),
    ("must have the label pod-security", lambda d: find(d, "Namespace/gpu-workloads")["metadata"].pop("labels")),
    ("Namespace/model-catalog: no NetworkPolicy denies", lambda d: policy(d, "default-deny").update(policyTypes=["Ingress"])),
]


@pytest.mark.parametrize(("complaint", "change"), BREAKS, ids=[complaint for complaint, _ in BREAKS])
def test_each_break_is_found(base: list[Document], complaint: str, change: Callable[[list[Document]], Any]) -> None:
    documents = copy.deepcopy(base)
    change(documents)
    problems = every_problem(documents, SECRETS)
    assert any(complaint in problem for problem in problems), problems


def test_schemas_refuse_a_wrong_type_a_misspelt_field_and_an_unknown_kind(base: list[Document]) -> None:
    documents = copy.deepcopy([find(base, API), find(base, "Service/dyno-api"), find(base, "ServiceAccount/dyno-api")])
    documents[0]["spec"]["replicas"] = "two"
    documents[1]["spec"]["port"] = []
    documents[2]["kind"] = "ServiceAcount"
    problems = validate.schema_problems(documents, ("1.37",))
    assert [problem.split(":")[0] for problem in problems] == [API, "Service/dyno-api", "ServiceAcount/dyno-api"]
    assert "spec.replicas" in problems[0]


def test_a_broken_base_makes_the_check_fail(tmp_path: Path) -> None:
    shutil.copytree(BASE, tmp_path / "base")
    path = tmp_path / "base" / "api.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("image: dyno:0.1.0", "image: dyno:latest"), encoding="utf-8")
    count, problems = validate.check(tmp_path / "base", SECRETS, kubectl())
    assert count == len(read_files(BASE))
    assert problems == ["Deployment/dyno-api, container api: image `dyno:latest` is not pinned to a tag or a digest"]


def test_without_kubectl_a_file_that_nobody_lists_is_found(tmp_path: Path) -> None:
    shutil.copytree(BASE, tmp_path / "base")
    (tmp_path / "base" / "extra.yaml").write_text("kind: Service\n", encoding="utf-8")
    with pytest.raises(ManifestError, match=r"differ in extra\.yaml"):
        read_files(tmp_path / "base")


def test_a_folder_that_kustomize_refuses_is_an_error_with_its_reason(tmp_path: Path) -> None:
    path = kubectl()
    if path is None:
        pytest.skip("no kubectl")
    (tmp_path / "kustomization.yaml").write_text("resources: [none.yaml]\n", encoding="utf-8")
    with pytest.raises(ManifestError, match=r"none\.yaml"):
        render(tmp_path, path)


@pytest.mark.parametrize("text", ["a: [", "- 1", "kin: Service"])
def test_what_is_no_manifest_is_an_error(text: str) -> None:
    with pytest.raises(ManifestError):
        parse(text, "x.yaml")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ({"operator": "In", "values": ["a", "b"]}, True),
        ({"operator": "NotIn", "values": ["a"]}, False),
        ({"operator": "Exists"}, True),
        ({"operator": "DoesNotExist"}, False),
    ],
)
def test_label_expressions(expression: Document, expected: bool) -> None:
    assert selects({"matchExpressions": [{"key": "app", **expression}]}, {"app": "a"}) is expected


def test_dockerfiles_take_only_hashed_wheels_and_do_not_run_as_root() -> None:
    for name, requirements in (("Dockerfile", "requirements/runtime.txt"), ("worker.Dockerfile", "requirements/worker.txt")):
        text = (ROOT / "k8s" / "images" / name).read_text(encoding="utf-8")
        assert requirements in text
        assert "--require-hashes --only-binary :all:" in text
        assert "\nUSER 10001:10001\n" in text
        for line in text.splitlines():
            if line.startswith("COPY ") and "--from" not in line:
                assert (ROOT / line.split()[1]).exists(), line
