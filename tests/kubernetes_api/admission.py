"""What happens to a body before it is stored: defaults, then validation.

Defaults: SetDefaults_* in pkg/apis/core/v1/defaults.go. Sentences: pkg/apis/core/validation/validation.go and apimachinery's
pkg/util/validation. The shape is checked against Kubernetes' OpenAPI schemas, strictly: what a real server would drop as an unknown field
(or answer with 400, where the client asks for strict field validation) is 422 here, because such a pod is a mistake of ours.
"""

from __future__ import annotations

import base64
import copy
import re
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, Final

import kubernetes_validate

from tests.kubernetes_api import errors
from tests.kubernetes_api.objects import CONFIG_MAPS, JOBS, PODS, SECRETS, Object, Resource, containers_of
from tests.kubernetes_api.quantities import quantity
from tests.kubernetes_api.spec import ClusterSpec

Cause = tuple[str, str, str]
DEFAULT_GRACE_S: Final = 30
SUPPORTED_VOLUMES: Final = frozenset({"emptyDir", "configMap", "secret", "persistentVolumeClaim"})
_NAME_SUFFIX_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"  # apimachinery pkg/util/rand
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_SUBDOMAIN_MESSAGE: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_LABEL_MESSAGE: Final = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_NOT_READY_S: Final = 300  # DefaultTolerationSeconds admission plugin
_MUTABLE: Final = (
    "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing "
    "tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def admit(resource: Resource, namespace: str, body: Object, spec: ClusterSpec) -> Object:
    """The object to store. Raises ApiError."""
    item = copy.deepcopy(body)
    item = {**item, "kind": resource.kind, "apiVersion": resource.api_version}
    metadata: Object = item.setdefault("metadata", {})
    if metadata.get("namespace", namespace) != namespace:
        raise errors.bad_request("the namespace of the provided object does not match the namespace sent on the request")
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = metadata["generateName"][:58] + "".join(secrets.choice(_NAME_SUFFIX_ALPHABET) for _ in range(5))
    if not metadata.get("name"):
        raise errors.invalid(resource, "", [("metadata.name", "FieldValueRequired", "Required value: name or generateName is required")])
    for field in ("uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "managedFields"):
        metadata.pop(field, None)
    check_schema(resource, item, spec.version)
    check_metadata(resource, item)
    if resource == PODS:
        _check_pod(item)
        metadata["generation"] = 1
        item["spec"] = _defaulted(item["spec"], namespace, spec)
        item["status"] = {"phase": "Pending", "qosClass": qos_class(item)}
    elif resource == SECRETS:
        decoded_strings(item)
        item.setdefault("type", "Opaque")
    elif resource == JOBS:
        metadata["generation"] = 1
        item["status"] = {}
    return item


def check_schema(resource: Resource, item: Object, version: str) -> None:
    """Raises ApiError (422) where the object is not of its kind's OpenAPI schema."""
    try:
        kubernetes_validate.validate(item, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.path).removeprefix(".")
        raise errors.invalid(resource, item["metadata"]["name"], [(where or "<nil>", "FieldValueInvalid", error.message)]) from error


def check_metadata(resource: Resource, item: Object) -> None:
    """Raises ApiError (422) for a name or a label that Kubernetes does not allow."""
    metadata = item["metadata"]
    name = metadata["name"]
    causes: list[Cause] = []
    if len(name) > 253 or not _SUBDOMAIN.fullmatch(name):
        causes.append(("metadata.name", "FieldValueInvalid", f'Invalid value: "{name}": {_SUBDOMAIN_MESSAGE}'))
    for value in (metadata.get("labels") or {}).values():
        if len(value) > 63:
            causes.append(("metadata.labels", "FieldValueInvalid", f'Invalid value: "{value}": must be no more than 63 bytes'))
        elif not _LABEL_VALUE.fullmatch(value):
            causes.append(("metadata.labels", "FieldValueInvalid", f'Invalid value: "{value}": {_LABEL_MESSAGE}'))
    if causes:
        raise errors.invalid(resource, name, causes)


def decoded_strings(secret: Object) -> None:
    """Secrets: `stringData` is for writing only and ends up in `data`."""
    for key, value in secret.pop("stringData", {}).items():
        secret.setdefault("data", {})[key] = base64.b64encode(value.encode()).decode()


def check_update(resource: Resource, old: Object, new: Object, version: str) -> None:
    """Raises ApiError when the API does not allow the change."""
    name = old["metadata"]["name"]
    for field in ("name", "namespace", "uid", "creationTimestamp"):
        if new["metadata"].get(field) != old["metadata"].get(field):
            raise errors.invalid(resource, name, [(f"metadata.{field}", "FieldValueInvalid", "Invalid value: field is immutable")])
    if new["metadata"].get("resourceVersion") not in {None, old["metadata"]["resourceVersion"]}:
        why = "the object has been modified; please apply your changes to the latest version and try again"
        raise errors.conflict(resource, name, why)
    if resource in {CONFIG_MAPS, SECRETS} and old.get("immutable") and new != old:
        raise errors.invalid(resource, name, [("data", "FieldValueForbidden", "Forbidden: field is immutable when `immutable` is set")])
    if resource == PODS and _fixed_part(new) != _fixed_part(old):
        message = f"Forbidden: pod updates may not change fields other than {_MUTABLE}"
        raise errors.invalid(resource, name, [("spec", "FieldValueForbidden", message)])
    check_schema(resource, new, version)
    check_metadata(resource, new)


def _fixed_part(pod: Object) -> Object:
    spec: Object = copy.deepcopy(pod["spec"])
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        container.pop("image")
    return {key: value for key, value in spec.items() if key not in {"activeDeadlineSeconds", "tolerations"}}


def _check_pod(pod: Object) -> None:
    spec = pod["spec"]
    name = pod["metadata"]["name"]
    causes = [*_container_causes(spec), *_spec_causes(spec)]
    if causes:
        raise errors.invalid(PODS, name, causes)
    for volume in spec.get("volumes", []):
        if unsupported := set(volume) - {"name"} - SUPPORTED_VOLUMES:
            raise errors.not_in_the_fake(f"volumes of kind {', '.join(sorted(unsupported))}")


def _spec_causes(spec: Object) -> Iterator[Cause]:
    policies = ("Always", "OnFailure", "Never")
    if spec.get("restartPolicy", "Always") not in policies:
        supported = ", ".join(f'"{policy}"' for policy in policies)
        message = f'Unsupported value: "{spec["restartPolicy"]}": supported values: {supported}'
        yield "spec.restartPolicy", "FieldValueNotSupported", message
    if spec.get("activeDeadlineSeconds", 1) < 1:
        message = f"Invalid value: {spec['activeDeadlineSeconds']}: must be between 1 and 2147483647, inclusive"
        yield "spec.activeDeadlineSeconds", "FieldValueInvalid", message
    if spec.get("terminationGracePeriodSeconds", 0) < 0:
        message = f"Invalid value: {spec['terminationGracePeriodSeconds']}: must be greater than or equal to 0"
        yield "spec.terminationGracePeriodSeconds", "FieldValueInvalid", message


def _container_causes(spec: Object) -> Iterator[Cause]:
    if not spec.get("containers"):
        yield "spec.containers", "FieldValueRequired", "Required value"
    volumes = {volume["name"] for volume in spec.get("volumes", [])}
    seen: set[str] = set()
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(kind, [])):
            where = f"spec.{kind}[{index}]"
            if container["name"] in seen:
                yield f"{where}.name", "FieldValueDuplicate", f'Duplicate value: "{container["name"]}"'
            seen.add(container["name"])
            if not container.get("image"):
                yield f"{where}.image", "FieldValueRequired", "Required value"
            for number, mount in enumerate(container.get("volumeMounts", [])):
                if mount["name"] not in volumes:
                    yield f"{where}.volumeMounts[{number}].name", "FieldValueNotFound", f'Not found: "{mount["name"]}"'
            yield from _resource_causes(where, container.get("resources", {}))


def _resource_causes(where: str, resources: Mapping[str, Mapping[str, str]]) -> Iterator[Cause]:
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    for name, value in {**requests, **limits}.items():
        if "/" in name and quantity(value) % 1 != 0:
            yield f"{where}.resources.limits[{name}]", "FieldValueInvalid", f'Invalid value: "{value}": must be an integer'
        elif name in limits and name in requests and quantity(requests[name]) > quantity(limits[name]):
            message = f'Invalid value: "{requests[name]}": must be less than or equal to {name} limit of {limits[name]}'
            yield f"{where}.resources.requests", "FieldValueInvalid", message
        elif "/" in name and (name not in limits or quantity(requests.get(name, value)) != quantity(limits[name])):
            if name not in limits:
                yield (
                    f"{where}.resources.limits",
                    "FieldValueRequired",
                    "Required value: Limit must be set for non overcommitable resources",
                )
            else:
                message = f'Invalid value: "{requests[name]}": must be equal to {name} limit of {limits[name]}'
                yield f"{where}.resources.requests", "FieldValueInvalid", message


def _defaulted(spec: Object, namespace: str, cluster: ClusterSpec) -> Object:
    priority = 0
    if (priority_class := spec.get("priorityClassName")) is not None:
        if priority_class not in cluster.priority_classes:
            raise errors.forbidden(PODS, "", f"no PriorityClass with name {priority_class} was found")
        priority = cluster.priority_classes[priority_class]
    account = spec.get("serviceAccountName", "default")
    defaults: Object = {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": DEFAULT_GRACE_S,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "default-scheduler",
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
        "serviceAccountName": account,
        "serviceAccount": account,
    }
    result = {**defaults, **spec, "priority": priority}
    for container in [*result.get("initContainers", []), *result["containers"]]:
        _default_container(container)
    for volume in result.get("volumes", []):
        for kind in ("secret", "configMap"):
            if kind in volume:
                volume[kind].setdefault("defaultMode", 0o644)
    tolerations = result.setdefault("tolerations", [])
    for condition in ("not-ready", "unreachable"):
        key = f"node.kubernetes.io/{condition}"
        if not any(each.get("key") == key for each in tolerations):
            tolerations.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _NOT_READY_S})
    return result


def _default_container(container: Object) -> None:
    tag = container["image"].rpartition("/")[2].partition("@")
    latest = not tag[1] and tag[0].partition(":")[2] in {"", "latest"}
    container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    resources = container.setdefault("resources", {})
    if limits := resources.get("limits"):
        resources["requests"] = {**limits, **resources.get("requests", {})}
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        if name in container:
            probe = container[name]
            for field, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
                probe.setdefault(field, value)
            if "httpGet" in probe:
                probe["httpGet"].setdefault("path", "/")
                probe["httpGet"].setdefault("scheme", "HTTP")
    for port in container.get("ports", []):
        port.setdefault("protocol", "TCP")


def qos_class(pod: Mapping[str, Any]) -> str:
    """https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/."""
    counted = ("cpu", "memory")
    parts = [container.get("resources", {}) for container in containers_of(dict(pod))]
    amounts = [(part.get("requests", {}).get(name), part.get("limits", {}).get(name)) for part in parts for name in counted]
    if all(request is None and limit is None for request, limit in amounts):
        return "BestEffort"
    same = all(limit is not None and quantity(request or limit) == quantity(limit) for request, limit in amounts)
    return "Guaranteed" if same else "Burstable"
