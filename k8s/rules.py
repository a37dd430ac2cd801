"""What Kubernetes' own schemas do not check: security of every pod, references that must exist, selectors and ports that must meet.

A rule takes all documents of one rendered folder and yields a sentence for each problem.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from k8s.manifests import Document, Workload, namespace_of, of_kind, selects, title, workloads

PINNED = re.compile(r"(?:@sha256:[0-9a-f]{64}|:(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]*))$")
RESTRICTED = "pod-security.kubernetes.io/enforce"


def pods_are_restricted(documents: list[Document]) -> Iterator[str]:
    """Pod Security Standard `restricted`, and a read-only root file system besides."""
    for workload in workloads(documents):
        security = workload.pod.get("securityContext", {})
        if security.get("runAsNonRoot") is not True or security.get("runAsUser") == 0:
            yield f"{workload.name}: the pod must set runAsNonRoot: true and no runAsUser: 0"
        if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{workload.name}: the pod must set seccompProfile RuntimeDefault"
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if workload.pod.get(field):
                yield f"{workload.name}: {field} is not allowed"
        for volume in workload.pod.get("volumes", []):
            if "hostPath" in volume:
                yield f"{workload.name}: volume {volume['name']} is a hostPath"
        for container in workload.containers():
            yield from _container_is_restricted(f"{workload.name}, container {container['name']}", container)


def _container_is_restricted(where: str, container: Document) -> Iterator[str]:
    security = container.get("securityContext", {})
    if security.get("allowPrivilegeEscalation") is not False:
        yield f"{where}: allowPrivilegeEscalation must be false"
    if security.get("readOnlyRootFilesystem") is not True:
        yield f"{where}: readOnlyRootFilesystem must be true"
    if security.get("privileged") or security.get("runAsNonRoot") is False or security.get("runAsUser") == 0:
        yield f"{where}: must be neither privileged nor root"
    capabilities = security.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
        yield f"{where}: must drop ALL capabilities and add none"


def containers_have_resources(documents: list[Document]) -> Iterator[str]:
    """Every container asks for CPU and memory and has a memory limit: a scheduler that knows nothing overcommits."""
    for workload in workloads(documents):
        for container in workload.containers():
            resources = container.get("resources", {})
            needed = [("requests", "cpu"), ("requests", "memory"), ("limits", "memory")]
            missing = [f"{part}.{what}" for part, what in needed if what not in resources.get(part, {})]
            if missing:
                yield f"{workload.name}, container {container['name']}: no {', '.join(missing)}"


def images_are_pinned(documents: list[Document]) -> Iterator[str]:
    """A tag other than `latest`, or a digest."""
    for workload in workloads(documents):
        for container in workload.containers():
            image = str(container.get("image", ""))
            match = PINNED.search(image.rsplit("/", 1)[-1])
            if match is None or match["tag"] == "latest":
                yield f"{workload.name}, container {container['name']}: image `{image}` is not pinned to a tag or a digest"


def references_exist(documents: list[Document], documented_secrets: set[tuple[str, str]]) -> Iterator[str]:
    """Every ConfigMap, Secret, ServiceAccount and PersistentVolumeClaim that a pod names.

    Args:
        documents: one rendered folder.
        documented_secrets: (name, key) of the Secrets that the person brings, as the documentation lists them.
    """
    known = {(document["kind"], namespace_of(document), document["metadata"]["name"]): document for document in documents}
    documented_names = {name for name, _ in documented_secrets}
    for workload in workloads(documents):
        for kind, name, key in _references(workload):
            target = known.get((kind, workload.namespace, name))
            if target is not None:
                present = {**target.get("data", {}), **target.get("stringData", {}), **target.get("binaryData", {})}
                if key is not None and key not in present:
                    yield f"{workload.name}: {kind} {name} has no key {key}"
            elif kind != "Secret":
                yield f"{workload.name}: {kind} {name} does not exist in namespace {workload.namespace}"
            elif (name, key) not in documented_secrets and (key is not None or name not in documented_names):
                yield f"{workload.name}: Secret {name}{f', key {key},' if key else ''} is neither here nor documented"


def _references(workload: Workload) -> Iterator[tuple[str, str, str | None]]:
    """(kind, name, key or None) of everything that a pod needs to find in its namespace."""
    yield "ServiceAccount", workload.pod.get("serviceAccountName", "default (none is set)"), None
    for volume in workload.pod.get("volumes", []):
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"], None
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"], None
        if "persistentVolumeClaim" in volume:
            yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"], None
    for container in workload.containers():
        for source in container.get("envFrom", []):
            for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if field in source:
                    yield kind, source[field]["name"], None
        for variable in container.get("env", []):
            for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                reference = variable.get("valueFrom", {}).get(field)
                if reference:
                    yield kind, reference["name"], reference["key"]


def mounts_have_volumes(documents: list[Document]) -> Iterator[str]:
    """Every volumeMount names a volume of its pod."""
    for workload in workloads(documents):
        volumes = {volume["name"] for volume in workload.pod.get("volumes", [])}
        for container in workload.containers():
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    yield f"{workload.name}, container {container['name']}: no volume {mount['name']}"


def selectors_match(documents: list[Document]) -> Iterator[str]:
    """A selector that matches nothing fails silently on a cluster."""
    pods = list(workloads(documents))
    for workload in pods:
        selector = workload.document.get("spec", {}).get("selector")
        if selector and not selects(selector, workload.labels):
            yield f"{workload.name}: its selector does not match its own pods"
    for document in of_kind(documents, "Service", "PodDisruptionBudget", "NetworkPolicy"):
        for selector in _selectors(document):
            if not _matching(pods, namespace_of(document), selector):
                yield f"{title(document)}: selector {selector} matches no workload in {namespace_of(document)}"


def _selectors(document: Document) -> Iterator[Document]:
    """The non-empty pod selectors of a document that stay in its own namespace."""
    spec = document["spec"]
    if document["kind"] == "Service":
        yield {"matchLabels": spec["selector"]}
    elif document["kind"] == "PodDisruptionBudget":
        yield spec["selector"]
    else:
        yield from (selector for selector in [spec["podSelector"], *_local_peers(_policy_rules(document))] if selector)


def _local_peers(rules: list[Document]) -> list[Document]:
    """The pod selectors of rules that stay in the policy's own namespace."""
    peers = [peer for rule in rules for peer in rule.get("from", []) + rule.get("to", [])]
    return [peer["podSelector"] for peer in peers if "podSelector" in peer and "namespaceSelector" not in peer]


def _policy_rules(policy: Document) -> list[Document]:
    return [*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])]


def _matching(pods: list[Workload], namespace: str, selector: Document) -> list[Workload]:
    return [pod for pod in pods if pod.namespace == namespace and selects(selector, pod.labels)]


def services_reach_pods(documents: list[Document]) -> Iterator[str]:
    """A Service's target port is a port of its pods, and some NetworkPolicy lets traffic in there."""
    pods, policies = list(workloads(documents)), of_kind(documents, "NetworkPolicy")
    for service in of_kind(documents, "Service"):
        for pod in _matching(pods, namespace_of(service), {"matchLabels": service["spec"]["selector"]}):
            for port in service["spec"]["ports"]:
                number = pod.port_number(port.get("targetPort", port["port"]))
                if number is None:
                    yield f"{title(service)}: {pod.name} has no port {port.get('targetPort', port['port'])}"
                elif not _is_let_in(policies, pod, number):
                    yield f"{title(service)}: no NetworkPolicy lets anything in at port {number} of {pod.name}"


def policies_name_real_ports(documents: list[Document]) -> Iterator[str]:
    """The ports that a NetworkPolicy opens between pods are ports that the receiving pods have."""
    pods = list(workloads(documents))
    for policy in of_kind(documents, "NetworkPolicy"):
        namespace, spec = namespace_of(policy), policy["spec"]
        for rule in spec.get("ingress", []):
            yield from _missing_ports(policy, rule, _matching(pods, namespace, spec["podSelector"]))
        for rule in spec.get("egress", []):
            for selector in _local_peers([rule]):
                yield from _missing_ports(policy, rule, _matching(pods, namespace, selector))


def probes_ask_real_ports(documents: list[Document]) -> Iterator[str]:
    """A probe of a port that no container has never succeeds."""
    for pod in workloads(documents):
        for container in pod.pod.get("containers", []):
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                action = container.get(probe, {})
                target = (action.get("httpGet") or action.get("grpc") or action.get("tcpSocket") or {}).get("port")
                if target is not None and target not in pod.ports():
                    yield f"{pod.name}, container {container['name']}: {probe} asks port {target}, which no container has"


def _missing_ports(policy: Document, rule: Document, pods: list[Workload]) -> Iterator[str]:
    for port in rule.get("ports", []):
        for pod in pods:
            if port["port"] not in pod.ports():
                yield f"{title(policy)}: {pod.name} has no port {port['port']}"


def _is_let_in(policies: list[Document], pod: Workload, number: int) -> bool:
    return any(
        pod.port_number(port["port"]) == number
        for policy in policies
        if namespace_of(policy) == pod.namespace and selects(policy["spec"]["podSelector"], pod.labels)
        for rule in policy["spec"].get("ingress", [])
        for port in rule.get("ports", [])
    )


def namespaces_are_closed(documents: list[Document]) -> Iterator[str]:
    """Every namespace is ours, enforces `restricted`, and denies all traffic that no policy allows."""
    namespaces = {document["metadata"]["name"]: document for document in of_kind(documents, "Namespace")}
    for document in documents:
        if document["kind"] != "Namespace" and namespace_of(document) not in namespaces:
            yield f"{title(document)}: namespace {namespace_of(document)} is not defined here"
    for name, namespace in namespaces.items():
        if namespace["metadata"].get("labels", {}).get(RESTRICTED) != "restricted":
            yield f"Namespace/{name}: must have the label {RESTRICTED}: restricted"
        closed = any(
            namespace_of(policy) == name
            and policy["spec"]["podSelector"] == {}
            and set(policy["spec"].get("policyTypes", [])) == {"Ingress", "Egress"}
            and not _policy_rules(policy)
            for policy in of_kind(documents, "NetworkPolicy")
        )
        if not closed:
            yield f"Namespace/{name}: no NetworkPolicy denies all ingress and egress by default"


def every_problem(documents: list[Document], documented_secrets: set[tuple[str, str]]) -> list[str]:
    """The problems that all rules find, in the rules' order."""
    return [
        *pods_are_restricted(documents),
        *containers_have_resources(documents),
        *images_are_pinned(documents),
        *references_exist(documents, documented_secrets),
        *mounts_have_volumes(documents),
        *selectors_match(documents),
        *services_reach_pods(documents),
        *policies_name_real_ports(documents),
        *probes_ask_real_ports(documents),
        *namespaces_are_closed(documents),
    ]
