"""JSON merge patches (RFC 7386) and strategic merge patches.

Merge keys: `patchMergeKey` in the Go types of k8s.io/api/core/v1 (staging/src/k8s.io/api/core/v1/types.go) and metav1.ObjectMeta.
"""

from __future__ import annotations

import copy
from typing import Any, Final

from tests.kubernetes_api.objects import Object

MERGE_PATCH: Final = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH: Final = "application/strategic-merge-patch+json"

_MERGE_KEYS: Final = {
    "ownerReferences": "uid",
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "imagePullSecrets": "name",
    "conditions": "type",
}
_MERGED_SETS: Final = frozenset({"finalizers"})
_DIRECTIVE: Final = "$patch"


def merge_patch(target: Any, patch: Any) -> Any:
    """`target` with an RFC 7386 patch on it."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result: Object = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def strategic_merge_patch(target: Any, patch: Any) -> Any:
    """`target` with a strategic merge patch on it: lists with a merge key are merged item by item, other lists are replaced."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    if patch.get(_DIRECTIVE) == "replace":
        return {key: copy.deepcopy(value) for key, value in patch.items() if key != _DIRECTIVE}
    result: Object = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif key in _MERGE_KEYS and isinstance(value, list):
            result[key] = _merge_list(result.get(key) or [], value, _MERGE_KEYS[key])
        elif key in _MERGED_SETS and isinstance(value, list):
            result[key] = list(dict.fromkeys([*(result.get(key) or []), *value]))
        else:
            result[key] = strategic_merge_patch(result.get(key), value)
    return result


def _merge_list(target: list[Object], patch: list[Object], merge_key: str) -> list[Object]:
    if any(item.get(_DIRECTIVE) == "replace" for item in patch):
        return [copy.deepcopy(item) for item in patch if item.get(_DIRECTIVE) != "replace"]
    result = {item[merge_key]: item for item in target}
    for item in patch:
        identity = item[merge_key]
        if item.get(_DIRECTIVE) == "delete":
            result.pop(identity, None)
        else:
            result[identity] = strategic_merge_patch(result.get(identity), item)
    return list(result.values())
