"""Events, as `kubectl describe pod` lists them. Repeated ones are counted, not added (client-go's tools/record correlator)."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from tests.kubernetes_api import errors
from tests.kubernetes_api.objects import EVENTS, Object, now
from tests.kubernetes_api.store import Store

NORMAL, WARNING = "Normal", "Warning"


class Recorder:
    """Writes the events of one component on one host."""

    def __init__(self, store: Store, component: str, host: str = "") -> None:
        self._store = store
        self._component = component
        self._host = host
        self._names: dict[tuple[str, ...], tuple[str, str]] = {}

    def record(self, item: Mapping[str, Any], kind: str, reason: str, message: str, container: str | None = None) -> None:
        """An event about an object; `container` is the field path of the container that it is about."""
        metadata = item["metadata"]
        key = (metadata["uid"], kind, reason, message, container or "")
        if key in self._names:
            namespace, name = self._names[key]
            try:
                self._store.update(EVENTS, namespace, name, _count)
            except errors.ApiError:
                del self._names[key]
            else:
                return
        namespace = metadata.get("namespace") or "default"
        body = self._event(item, kind, reason, message, container)
        self._names[key] = (namespace, body["metadata"]["name"])
        self._store.create(EVENTS, namespace, body)

    def _event(self, item: Mapping[str, Any], kind: str, reason: str, message: str, container: str | None) -> Object:
        metadata = item["metadata"]
        involved = {
            "kind": item["kind"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "apiVersion": item["apiVersion"],
            "resourceVersion": metadata["resourceVersion"],
            **({"namespace": metadata["namespace"]} if "namespace" in metadata else {}),
            **({"fieldPath": container} if container else {}),
        }
        return {
            "metadata": {"name": f"{metadata['name']}.{secrets.token_hex(8)}"},
            "involvedObject": involved,
            "reason": reason,
            "message": message,
            "source": {"component": self._component, **({"host": self._host} if self._host else {})},
            "firstTimestamp": now(),
            "lastTimestamp": now(),
            "count": 1,
            "type": kind,
            "eventTime": None,
            "reportingComponent": self._component,
            "reportingInstance": self._host,
        }


def _count(event: Object) -> None:
    event["count"] += 1
    event["lastTimestamp"] = now()
