"""Binds pods to nodes: node selector, node affinity, taints, resource requests, claims.

Sentences: pkg/scheduler/framework/plugins/*/ (the Err... constants) and FitError in pkg/scheduler/framework/types.go.
No preemption of its own: a test preempts (faults.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from tests.kubernetes_api.objects import CLAIMS, NODES, PODS, TERMINAL, Object, key_of, set_condition
from tests.kubernetes_api.quantities import add, pod_requests, quantity, total
from tests.kubernetes_api.recorder import NORMAL, WARNING, Recorder
from tests.kubernetes_api.store import DELETED, Change, Store

NOT_HELPFUL: Final = "Preemption is not helpful for scheduling"
NO_VICTIMS: Final = "No preemption victims found for incoming pod"
UNSCHEDULABLE: Final = "node(s) were unschedulable"
UNTOLERATED: Final = "node(s) had untolerated taint(s)"
NO_AFFINITY: Final = "node(s) didn't match Pod's node affinity/selector"
NOT_READY: Final = "node(s) were not ready"


class Scheduler:
    """Told of every change; schedules what can be scheduled then."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._recorder = Recorder(store, "default-scheduler")
        self._reported: dict[str, str] = {}
        store.subscribe(self._changed)

    def _changed(self, change: Change) -> None:
        pod = change.item
        if change.resource == PODS and change.kind == DELETED:
            self._reported.pop(pod["metadata"]["uid"], None)
        concerns = change.resource in {NODES, CLAIMS} or (
            change.resource == PODS and (change.kind != "MODIFIED" or pod["status"]["phase"] in TERMINAL)
        )
        if concerns:
            for waiting in self._store.find(PODS, matches=_waits):
                self._schedule(waiting)

    def _schedule(self, pod: Object) -> None:
        nodes = self._store.find(NODES)
        bound = self._store.find(PODS, matches=_holds_resources)
        reasons: Counter[str] = Counter()
        fitting: list[Object] = []
        for node in nodes:
            there = [other for other in bound if other["spec"]["nodeName"] == node["metadata"]["name"]]
            problems = list(misfits(pod, node, there))
            reasons.update(problems)
            if not problems:
                fitting.append(node)
        lacking = [claim for claim in _claims(pod) if not self._has_claim(pod["metadata"]["namespace"], claim)]
        if lacking:
            self._refuse(pod, f'0/{len(nodes)} nodes are available: persistentvolumeclaim "{lacking[0]}" not found.')
        elif not nodes:
            self._refuse(pod, "no nodes available to schedule pods")
        elif not fitting:
            self._refuse(pod, fit_error(len(nodes), reasons))
        else:
            self._bind(pod, max(fitting, key=lambda node: preference(pod, node)))

    def _has_claim(self, namespace: str, name: str) -> bool:
        return any(claim["metadata"]["name"] == name for claim in self._store.find(CLAIMS, namespace))

    def _refuse(self, pod: Object, message: str) -> None:
        uid = pod["metadata"]["uid"]
        if self._reported.get(uid) == message:
            return
        self._reported[uid] = message
        self._recorder.record(pod, WARNING, "FailedScheduling", message)
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        self._store.update(*_address(pod), lambda body: set_condition(body["status"], condition))

    def _bind(self, pod: Object, node: Object) -> None:
        name = node["metadata"]["name"]
        self._recorder.record(pod, NORMAL, "Scheduled", f"Successfully assigned {key_of(pod)} to {name}")

        def bind(body: Object) -> None:
            body["spec"]["nodeName"] = name
            set_condition(body["status"], {"type": "PodScheduled", "status": "True"})

        self._store.update(*_address(pod), bind)


def _address(pod: Object) -> tuple[Any, str, str]:
    return PODS, pod["metadata"]["namespace"], pod["metadata"]["name"]


def _waits(pod: Mapping[str, Any]) -> bool:
    return not pod["spec"].get("nodeName") and "deletionTimestamp" not in pod["metadata"] and pod["status"]["phase"] not in TERMINAL


def _holds_resources(pod: Mapping[str, Any]) -> bool:
    return bool(pod["spec"].get("nodeName")) and pod["status"]["phase"] not in TERMINAL


def _claims(pod: Mapping[str, Any]) -> list[str]:
    volumes = pod["spec"].get("volumes", [])
    return [volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume]


def fit_error(nodes: int, reasons: Counter[str]) -> str:
    """The message of FailedScheduling."""
    listed = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
    full = sum(count for reason, count in reasons.items() if reason.startswith(("Insufficient", "Too many")))
    full = min(full, nodes)
    helpless = nodes - full
    parts = [*([f"{full} {NO_VICTIMS}"] if full else []), *([f"{helpless} {NOT_HELPFUL}"] if helpless else [])]
    return f"0/{nodes} nodes are available: {listed}. preemption: 0/{nodes} nodes are available: {', '.join(parts)}."


def misfits(pod: Mapping[str, Any], node: Mapping[str, Any], there: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Why the pod cannot run on the node. The first filter that fails speaks alone, as in the scheduler's framework."""
    spec, labels = pod["spec"], node["metadata"].get("labels", {})
    if node["spec"].get("unschedulable"):
        yield UNSCHEDULABLE
        return
    if any(not _tolerated(taint, spec.get("tolerations", [])) for taint in node["spec"].get("taints", [])):
        yield UNTOLERATED
        return
    required = spec.get("affinity", {}).get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    selected = all(labels.get(key) == value for key, value in spec.get("nodeSelector", {}).items())
    if not selected or (required and not any(_term(term, node) for term in required["nodeSelectorTerms"])):
        yield NO_AFFINITY
        return
    free = {name: quantity(value) for name, value in node["status"]["allocatable"].items()}
    used = total(there)
    wanted = add(pod_requests(pod), {"pods": Decimal(1)})
    for name in sorted(wanted):
        if wanted[name] > 0 and used.get(name, Decimal(0)) + wanted[name] > free.get(name, Decimal(0)):
            yield "Too many pods" if name == "pods" else f"Insufficient {name}"


def preference(pod: Mapping[str, Any], node: Mapping[str, Any]) -> int:
    """Sum of the weights of the preferred node affinity terms that match."""
    preferred = pod["spec"].get("affinity", {}).get("nodeAffinity", {}).get("preferredDuringSchedulingIgnoredDuringExecution", [])
    return sum(int(each["weight"]) for each in preferred if _term(each["preference"], node))


def _tolerated(taint: Mapping[str, str], tolerations: Sequence[Mapping[str, Any]]) -> bool:
    return taint["effect"] == "PreferNoSchedule" or any(_tolerates(each, taint) for each in tolerations)


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, str]) -> bool:
    if toleration.get("effect") not in {None, "", taint["effect"]}:
        return False
    operator = toleration.get("operator") or "Equal"
    key = toleration.get("key", "")
    if not key:
        return bool(operator == "Exists")
    return bool(key == taint["key"] and (operator == "Exists" or toleration.get("value", "") == taint.get("value", "")))


def _term(term: Mapping[str, Any], node: Mapping[str, Any]) -> bool:
    labels = node["metadata"].get("labels", {})
    fields = {"metadata.name": node["metadata"]["name"]}
    return all(_expression(each, labels) for each in term.get("matchExpressions", [])) and all(
        _expression(each, fields) for each in term.get("matchFields", [])
    )


def _expression(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, operator, values = expression["key"], expression["operator"], expression.get("values", [])
    value = labels.get(key)
    match operator:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and int(value) > int(values[0])
        case "Lt":
            return value is not None and int(value) < int(values[0])
        case _:
            raise ValueError(f"{operator} is no operator of a node selector")
