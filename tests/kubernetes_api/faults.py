"""What goes wrong in clusters, on demand: `POST /_test/<fault>` with a JSON body. Not part of Kubernetes.

Each leaves the objects in the state in which a real cluster leaves them; the sources are with the faults.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.kubernetes_api import errors
from tests.kubernetes_api.images import Images, PullFault
from tests.kubernetes_api.kubelet import Ending, Kubelet
from tests.kubernetes_api.nodes import node_object
from tests.kubernetes_api.objects import FAILED, NODES, PODS, TERMINAL, Object, disruption, set_condition
from tests.kubernetes_api.recorder import NORMAL, WARNING, Recorder
from tests.kubernetes_api.spec import node_of
from tests.kubernetes_api.store import Store, delete

# pkg/kubelet/nodeshutdown/nodeshutdown_manager.go
SHUTDOWN_REASON: Final = "Terminated"
SHUTDOWN_MESSAGE: Final = "Pod was terminated in response to imminent node shutdown."
# pkg/scheduler/framework/preemption
PREEMPTION_MESSAGE: Final = "default-scheduler: preempting to accommodate a higher priority pod"
# pkg/controller/podgc/gc_controller.go: the pod of a node that is gone is marked as failed, then deleted without grace.
ORPHAN = disruption("DeletionByPodGC", "PodGC: node no longer exists")
# pkg/controller/tainteviction and pkg/controller/util/node
TAINT_EVICTION = disruption("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
NODE_LOST: Final = "NodeLost"
# pkg/kubelet/eviction/helpers.go
EVICTION_MESSAGE: Final = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 51200Ki. "
IMMEDIATE_EVICTION_GRACE_S: Final = 1.0


@dataclass
class RequestFault:
    """The next `count` requests whose method and path fit go wrong; with `after`, once they have been carried out."""

    kind: str
    count: int
    methods: tuple[str, ...]
    path: re.Pattern[str]
    after: bool

    def hits(self, method: str, path: str) -> bool:
        """Whether this request is one of them; counts it."""
        hit = self.count > 0 and method in self.methods and self.path.search(path) is not None
        self.count -= hit
        return hit


class Faults:
    """The faults of one cluster."""

    def __init__(self, store: Store, kubelet: Kubelet, images: Images, drop_streams: Callable[[str, bool], int]) -> None:
        self._store = store
        self._kubelet = kubelet
        self._images = images
        self._drop_streams = drop_streams
        self._recorder = Recorder(store, "default-scheduler")
        self._requests: list[RequestFault] = []
        self._known: Mapping[str, Callable[[Object], Object | None]] = {
            "cordon": self._cordon,
            "add-node": self._add_node,
            "lose-node": self._lose_node,
            "shut-down-node": self._shut_down_node,
            "disconnect-node": self._disconnect_node,
            "pressure": self._pressure,
            "preempt": self._preempt,
            "reclaim": self._reclaim,
            "evict": self._evict,
            "vanish": self._vanish,
            "unpullable": self._unpullable,
            "oom-kill": self._oom_kill,
            "signal": self._signal,
            "fail-requests": self._fail_requests,
            "drop-streams": self._drop,
            "compact": self._compact,
        }

    def apply(self, fault: str, body: Object) -> Object:
        """Raises ApiError (404) for a fault, a pod or a node that is not there."""
        if fault not in self._known:
            raise errors.ApiError(404, "NotFound", f"there is no fault {fault}: {', '.join(self._known)}")
        return self._known[fault](body) or {}

    def of_request(self, method: str, path: str) -> RequestFault | None:
        """What goes wrong with this request."""
        return next((fault for fault in self._requests if fault.hits(method, path)), None)

    def _cordon(self, body: Object) -> None:
        def cordon(node: Object) -> None:
            node["spec"]["unschedulable"] = body["unschedulable"]

        self._store.update(NODES, "", body["node"], cordon)

    def _add_node(self, body: Object) -> None:
        self._kubelet.unreachable.discard(body["name"])
        self._store.create(NODES, "", node_object(node_of(body)))

    def _lose_node(self, body: Object) -> None:
        """The machine is gone, and so is its Node: the pods' processes end at once, PodGC removes the pods."""
        node = body["node"]
        pods = self._break_off(node, keep_running=False)
        self._store.remove(NODES, "", node)
        for pod in pods:
            if pod["status"]["phase"] not in TERMINAL:
                self._store.update(*_address(pod), lambda item: _fail(item, ORPHAN))
            delete(self._store, PODS, self._store.get(*_address(pod)), 0)

    def _shut_down_node(self, body: Object) -> None:
        """Graceful node shutdown: the pods end within their grace period, stay as Failed, and the node takes no more."""
        self._cordon({"node": body["node"], "unschedulable": True})
        for pod in self._kubelet.on(body["node"]):
            self._end_by_kubelet(pod, SHUTDOWN_REASON, SHUTDOWN_MESSAGE, remove=False)

    def _disconnect_node(self, body: Object) -> None:
        """The node does not answer: its pods are deleted by taint eviction but stay, Terminating, because no kubelet confirms their end."""
        node = body["node"]
        pods = self._break_off(node, keep_running=body["keep_running"])

        def taint(item: Object) -> None:
            item["spec"]["taints"] = [
                *item["spec"].get("taints", []),
                *({"key": "node.kubernetes.io/unreachable", "effect": effect} for effect in ("NoSchedule", "NoExecute")),
            ]
            message = "Kubelet stopped posting node status."
            set_condition(item["status"], {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": message})

        self._store.update(NODES, "", node, taint)
        for pod in pods:
            if pod["status"]["phase"] in TERMINAL:
                continue

            def lose(item: Object) -> None:
                name = item["metadata"]["name"]
                set_condition(item["status"], {"type": "Ready", "status": "False"})
                set_condition(item["status"], TAINT_EVICTION)
                item["status"] |= {"reason": NODE_LOST, "message": f"Node {node} which was running pod {name} is unresponsive"}

            delete(self._store, PODS, self._store.update(*_address(pod), lose))

    def _break_off(self, node: str, *, keep_running: bool) -> list[Object]:
        pods = self._kubelet.on(node)
        self._kubelet.unreachable.add(node)
        for pod in pods:
            worker = self._kubelet.workers.get(pod["metadata"]["uid"])
            if worker is not None:
                worker.node_died(keep_running=keep_running)
        return pods

    def _pressure(self, body: Object) -> None:
        """The node rejects new pods as Evicted; `condition` null ends it."""
        if body["condition"] is None:
            self._kubelet.under_pressure.pop(body["node"], None)
        else:
            self._kubelet.under_pressure[body["node"]] = body["condition"]

    def _preempt(self, body: Object) -> None:
        """The scheduler makes room: condition, event, then an ordinary delete with the pod's grace period."""
        pod = self._store.get(PODS, body["namespace"], body["name"])
        condition = disruption("PreemptionByScheduler", PREEMPTION_MESSAGE)
        self._store.update(*_address(pod), lambda item: set_condition(item["status"], condition))
        node = pod["spec"].get("nodeName", "")
        self._recorder.record(pod, NORMAL, "Preempted", f"Preempted by pod {body['by']} on node {node}")
        delete(self._store, PODS, self._store.get(*_address(pod)))

    def _reclaim(self, body: Object) -> None:
        """The provider takes a spot machine back: graceful shutdown of the pod, then the pod is gone with its node."""
        pod = self._store.get(PODS, body["namespace"], body["name"])
        self._end_by_kubelet(pod, SHUTDOWN_REASON, SHUTDOWN_MESSAGE, remove=True)

    def _end_by_kubelet(self, pod: Object, reason: str, message: str, *, remove: bool) -> None:
        worker = self._kubelet.workers.get(pod["metadata"]["uid"])
        if worker is not None and pod["status"]["phase"] not in TERMINAL:
            grace_s = pod["spec"]["terminationGracePeriodSeconds"]
            worker.end(Ending(grace_s, reason, message, disruption("TerminationByKubelet", message), remove=remove))

    def _evict(self, body: Object) -> None:
        """Node pressure: the pod stays as Failed/Evicted. Without `with_statuses` no container has a status, as when one never had."""
        pod = self._store.get(PODS, body["namespace"], body["name"])
        message = body["message"] or EVICTION_MESSAGE
        self._recorder.record(pod, WARNING, "Evicted", message)
        condition = disruption("TerminationByKubelet", message)
        worker = self._kubelet.workers.get(pod["metadata"]["uid"])
        if worker is not None:
            with_statuses = body["with_statuses"]
            worker.end(Ending(IMMEDIATE_EVICTION_GRACE_S, "Evicted", message, condition, with_statuses=with_statuses))
            return

        def fail(item: Object) -> None:
            _fail(item, condition)
            item["status"] |= {"reason": "Evicted", "message": message}

        self._store.update(*_address(pod), fail)

    def _vanish(self, body: Object) -> None:
        """The object is gone without a word, its processes with it."""
        pod = self._store.get(PODS, body["namespace"], body["name"])
        worker = self._kubelet.workers.get(pod["metadata"]["uid"])
        if worker is not None:
            worker.node_died(keep_running=False)
        delete(self._store, PODS, pod, 0)

    def _unpullable(self, body: Object) -> None:
        message = body["message"] or f'failed to resolve reference "{body["prefix"]}": unexpected status from HEAD request: 503 Unavailable'
        self._images.fail(PullFault(body["prefix"], body["attempts"], message))

    def _oom_kill(self, body: Object) -> None:
        """The kernel kills the container's processes: OOMKilled, 137."""
        container = self._container(body)
        container.oom_killed = True
        container.signal(signal.SIGKILL)

    def _signal(self, body: Object) -> None:
        """The container's first process gets a signal: 11 is a crash."""
        self._container(body).signal(signal.Signals(body["number"]))

    def _container(self, body: Object) -> Any:
        worker = self._kubelet.worker(body["namespace"], body["name"])
        found = next((each for each in worker.containers if each.name == body["container"] and each.runs), None)
        if found is None:
            raise errors.bad_request(f"container {body['container']} of pod {body['name']} does not run")
        return found

    def _fail_requests(self, body: Object) -> None:
        fault = RequestFault(body["kind"], body["count"], tuple(body["methods"]), re.compile(body["path"]), body["after"])
        self._requests = [each for each in self._requests if each.count > 0] + [fault]

    def _drop(self, body: Object) -> Object:
        return {"dropped": self._drop_streams(body["kind"], body["reset"])}

    def _compact(self, _: Object) -> None:
        self._store.compact()


def _address(pod: Object) -> tuple[Any, str, str]:
    return PODS, pod["metadata"]["namespace"], pod["metadata"]["name"]


def _fail(pod: Object, condition: Object) -> None:
    pod["status"]["phase"] = FAILED
    set_condition(pod["status"], condition)
