"""Label and field selectors: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/ and .../field-selectors/."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.kubernetes_api.errors import bad_request
from tests.kubernetes_api.objects import EVENTS, JOBS, PODS, Object, Resource

Matcher = Callable[[Mapping[str, Any]], bool]

# ToSelectableFields and GetAttrs in pkg/registry/core/pod/strategy.go and pkg/registry/core/event/strategy.go
_EVERYWHERE: Final = frozenset({"metadata.name", "metadata.namespace"})
_FIELDS: Final[Mapping[Resource, frozenset[str]]] = {
    PODS: frozenset(
        {"spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "status.phase", "status.podIP"}
    ),
    EVENTS: frozenset(
        {
            *(f"involvedObject.{field}" for field in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")),
            "reason",
            "reportingComponent",
            "source",
            "type",
        }
    ),
    JOBS: frozenset({"status.successful"}),
}
_COMMA_OUTSIDE_BRACKETS = re.compile(r",(?![^()]*\))")
_SET = re.compile(r"(?P<key>\S+)\s+(?P<operator>in|notin)\s+\((?P<values>[^)]*)\)")
_EQUALITY = re.compile(r"(?P<key>[^!=\s]+)\s*(?P<operator>==|=|!=)\s*(?P<value>[^!=\s]*)")
_EXISTS = re.compile(r"(?P<absent>!?)\s*(?P<key>[^!=\s]+)")


def label_selector(text: str) -> Matcher:
    """Whether an object's labels match. Raises ApiError (400) when the text is no selector."""
    terms = [_label_term(part.strip()) for part in _COMMA_OUTSIDE_BRACKETS.split(text) if part.strip()]
    return lambda item: all(term(item["metadata"].get("labels") or {}) for term in terms)


def _label_term(text: str) -> Matcher:
    if match := _SET.fullmatch(text):
        key, values = match["key"], {value.strip() for value in match["values"].split(",")}
        wanted = match["operator"] == "in"
        return lambda labels: (labels.get(key) in values) == wanted
    if match := _EQUALITY.fullmatch(text):
        key, value = match["key"], match["value"]
        if match["operator"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if match := _EXISTS.fullmatch(text):
        key, absent = match["key"], bool(match["absent"])
        return lambda labels: (key in labels) != absent
    raise bad_request(f"unable to parse requirement: found '{text}'")


def field_selector(resource: Resource, text: str) -> Matcher:
    """Whether an object's fields match. Raises ApiError (400) for a field that the real API does not select by."""
    terms: list[tuple[str, bool, str]] = []
    for part in filter(None, text.split(",")):
        match = _EQUALITY.fullmatch(part.strip())
        if match is None:
            raise bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
        if match["key"] not in _EVERYWHERE | _FIELDS.get(resource, frozenset()):
            raise bad_request(f"field label not supported: {match['key']}")
        terms.append((match["key"], match["operator"] != "!=", match["value"]))
    return lambda item: all((_field(item, key) == value) == equal for key, equal, value in terms)


def _field(item: Mapping[str, Any], path: str) -> str:
    if path == "source" and item.get("kind") == EVENTS.kind:
        return str(item["source"].get("component", ""))
    value: Any = item
    for part in path.split("."):
        value = value.get(part, "") if isinstance(value, Mapping) else ""
    return str(value)


def both(labels: Matcher, fields: Matcher) -> Matcher:
    """Matches both."""

    def matches(item: Object | Mapping[str, Any]) -> bool:
        return labels(item) and fields(item)

    return matches
