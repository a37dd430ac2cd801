"""/version, /api, /apis: enough for clients that ask what there is."""

from __future__ import annotations

from typing import Final

from tests.kubernetes_api.objects import RESOURCES, Object, Resource

_VERBS: Final = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_READ_VERBS: Final = ["get", "list", "watch"]
_SUBRESOURCES: Final = {"pods": ("eviction", "log", "status"), "jobs": ("status",)}


def discovery(path: str, version: str) -> Object | None:
    """The answer to a discovery path, or None."""
    groups = sorted({resource.group for resource in RESOURCES if resource.group})
    if path == "/version":
        major, minor = version.split(".")[:2]
        unknown = dict.fromkeys(("buildDate", "compiler", "gitCommit", "gitTreeState", "goVersion"), "")
        return {**unknown, "major": major, "minor": minor, "gitVersion": f"v{major}.{minor}.0+fake", "platform": "linux/amd64"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    if path == "/apis":
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(group) for group in groups]}
    for root in {resource.root: resource for resource in RESOURCES}.values():
        if path == root.root:
            listed = [entry for resource in RESOURCES if resource.root == path for entry in _entries(resource)]
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": root.api_version, "resources": listed}
    return None


def _group(group: str) -> Object:
    version = {"groupVersion": f"{group}/v1", "version": "v1"}
    return {"name": group, "versions": [version], "preferredVersion": version}


def _entries(resource: Resource) -> list[Object]:
    shared = {"singularName": resource.kind.lower(), "namespaced": resource.namespaced, "kind": resource.kind}
    verbs = _VERBS if resource.namespaced else _READ_VERBS
    below = [
        {**shared, "name": f"{resource.plural}/{name}", "verbs": ["get", "patch", "update"]}
        for name in _SUBRESOURCES.get(resource.plural, ())
    ]
    return [{**shared, "name": resource.plural, "verbs": verbs}, *below]
