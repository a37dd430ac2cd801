"""Reading Kubernetes manifests: rendering a folder, and the few questions that the rules ask of a document."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]

KUSTOMIZATION = "kustomization.yaml"
RENDER_TIMEOUT_S = 120


class ManifestError(Exception):
    """Manifests cannot be read or rendered; the message says which and why."""


@dataclass(frozen=True)
class Workload:
    """A document that makes pods, with the parts of its pod template that rules read."""

    document: Document
    name: str
    """`kind/name`, for messages."""
    namespace: str
    labels: Mapping[str, str]
    pod: Document

    def containers(self) -> list[Document]:
        """Init containers and containers."""
        return [*self.pod.get("initContainers", []), *self.pod.get("containers", [])]

    def ports(self) -> set[int | str]:
        """Every container port, by number and by name."""
        declared = [port for container in self.pod.get("containers", []) for port in container.get("ports", [])]
        return {port["containerPort"] for port in declared} | {port["name"] for port in declared if "name" in port}

    def port_number(self, port: int | str) -> int | None:
        """The number of a container port that is given by number or by name; None when no container has it."""
        for container in self.pod.get("containers", []):
            for declared in container.get("ports", []):
                if port in {declared["containerPort"], declared.get("name")}:
                    return int(declared["containerPort"])
        return None


def kubectl() -> str | None:
    """The path of kubectl, if this machine has it."""
    return shutil.which("kubectl")


def render(folder: Path, kubectl_path: str) -> list[Document]:
    """The documents that `kubectl kustomize` makes of a folder; needs no cluster and no network.

    Raises:
        ManifestError: kustomize refuses the folder.
    """
    done = subprocess.run(
        [kubectl_path, "kustomize", str(folder)],
        capture_output=True,
        text=True,
        timeout=RENDER_TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        raise ManifestError(f"{folder}: {done.stderr.strip()}")
    return parse(done.stdout, str(folder))


def read_files(folder: Path) -> list[Document]:
    """The documents of the files that a base lists, as they are written: for a machine without kubectl.

    Raises:
        ManifestError: a listed file is missing, a file is not listed, or something is no YAML.
    """
    kustomization = parse((folder / KUSTOMIZATION).read_text(encoding="utf-8"), str(folder / KUSTOMIZATION))[0]
    listed = set(kustomization.get("resources", []))
    present = {path.name for path in folder.glob("*.yaml")} - {KUSTOMIZATION}
    if listed != present:
        raise ManifestError(f"{folder / KUSTOMIZATION}: its resources and the folder differ in {', '.join(sorted(listed ^ present))}")
    return [document for name in sorted(listed) for document in parse((folder / name).read_text(encoding="utf-8"), str(folder / name))]


def parse(text: str, source: str) -> list[Document]:
    """The YAML documents of a text, empty ones left out.

    Raises:
        ManifestError: no YAML, or a document without `kind`.
    """
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        raise ManifestError(f"{source}: {error}") from error
    for document in documents:
        if not isinstance(document, dict) or "kind" not in document:
            raise ManifestError(f"{source}: a document without `kind`")
    return documents


def title(document: Document) -> str:
    """`kind/name` of a document, for messages."""
    return f"{document['kind']}/{document.get('metadata', {}).get('name', '?')}"


def namespace_of(document: Document) -> str:
    """The namespace of a document; `default` when it names none, as kubectl takes it."""
    return str(document.get("metadata", {}).get("namespace", "default"))


def of_kind(documents: list[Document], *kinds: str) -> list[Document]:
    """The documents of some kinds."""
    return [document for document in documents if document["kind"] in kinds]


def workloads(documents: list[Document]) -> Iterator[Workload]:
    """Every document that makes pods."""
    for document in of_kind(documents, "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Pod"):
        template = document
        if document["kind"] == "CronJob":
            template = document["spec"]["jobTemplate"]["spec"]["template"]
        elif document["kind"] != "Pod":
            template = document["spec"]["template"]
        labels = template.get("metadata", {}).get("labels", {})
        yield Workload(document, title(document), namespace_of(document), labels, template["spec"])


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector (matchLabels and matchExpressions) matches labels; an empty one matches everything."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for expression in selector.get("matchExpressions", []):
        value, values = labels.get(expression["key"]), expression.get("values", [])
        holds = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[expression["operator"]]
        if not holds:
            return False
    return True
