"""Kubernetes objects as the wire has them: JSON in dictionaries, times as RFC 3339 strings."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

Object: TypeAlias = dict[str, Any]
NANOSECONDS: Final = 1_000_000_000


@dataclass(frozen=True)
class Resource:
    """A kind of objects and where the API serves it."""

    plural: str
    kind: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`v1`, `batch/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        """`/api/v1`, `/apis/batch/v1`."""
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"

    @property
    def qualified(self) -> str:
        """As messages name it: `pods`, `jobs.batch`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


PODS: Final = Resource("pods", "Pod")
EVENTS: Final = Resource("events", "Event")
CONFIG_MAPS: Final = Resource("configmaps", "ConfigMap")
SECRETS: Final = Resource("secrets", "Secret")
CLAIMS: Final = Resource("persistentvolumeclaims", "PersistentVolumeClaim")
JOBS: Final = Resource("jobs", "Job", group="batch")
NAMESPACES: Final = Resource("namespaces", "Namespace", namespaced=False)
NODES: Final = Resource("nodes", "Node", namespaced=False)
RESOURCES: Final = (PODS, EVENTS, CONFIG_MAPS, SECRETS, CLAIMS, JOBS, NAMESPACES, NODES)

SUCCEEDED: Final = "Succeeded"
FAILED: Final = "Failed"
TERMINAL: Final = frozenset({SUCCEEDED, FAILED})


def now(ahead_s: float = 0.0) -> str:
    """metav1.Time: RFC 3339 in UTC, whole seconds."""
    return datetime.fromtimestamp(time.time() + ahead_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def log_time(instant_ns: int) -> str:
    """RFC 3339 with nine digits of the second, as the kubelet stamps log lines (RFC3339NanoFixed in pkg/kubelet/types/types.go)."""
    seconds, nanoseconds = divmod(instant_ns, NANOSECONDS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"


def named(items: Iterable[Mapping[str, Any]], name: str) -> Mapping[str, Any] | None:
    """The item with this `name`."""
    return next((item for item in items if item["name"] == name), None)


def key_of(item: Mapping[str, Any]) -> str:
    """`namespace/name`."""
    return f"{item['metadata'].get('namespace', '')}/{item['metadata']['name']}"


def restartable(container: Mapping[str, Any]) -> bool:
    """Whether an init container is a native sidecar."""
    return container.get("restartPolicy") == "Always"


def containers_of(pod: Mapping[str, Any]) -> list[Object]:
    """Init containers, then containers."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def set_condition(status: Object, condition: Mapping[str, Any]) -> None:
    """Put a condition in place of the one of its type; the transition time moves only with its status."""
    conditions: list[Object] = status.setdefault("conditions", [])
    old = next((each for each in conditions if each["type"] == condition["type"]), None)
    same = old is not None and old["status"] == condition["status"]
    stamped = {"lastProbeTime": None, "lastTransitionTime": old["lastTransitionTime"] if old is not None and same else now(), **condition}
    if old is None:
        conditions.append(stamped)
    else:
        conditions[conditions.index(old)] = stamped


def disruption(reason: str, message: str) -> Object:
    """The condition that says that a pod ends for a reason outside it: Pod disruption conditions in the Kubernetes docs ("Disruptions")."""
    return {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}
