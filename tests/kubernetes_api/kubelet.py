"""Runs pods as local processes, the way a node's kubelet runs them as containers.

One `PodWorker` for each pod: volumes, init containers in order (native sidecars stay), containers, restarts, probes, deadline, and the
end: SIGTERM to the containers, then to the sidecars in reverse order, SIGKILL when the grace period is over
(https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination, .../sidecar-containers/).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import signal
import time
import traceback
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

from tests.kubernetes_api import errors, pod_status, probes
from tests.kubernetes_api.container import Container, termination_message
from tests.kubernetes_api.environment import ConfigError, command, environment
from tests.kubernetes_api.filesystem import MountError, PodFilesystem
from tests.kubernetes_api.images import ERR_IMAGE_PULL, IMAGE_PULL_BACK_OFF, Images
from tests.kubernetes_api.objects import FAILED, PODS, TERMINAL, Object, now, set_condition
from tests.kubernetes_api.processes import CLUSTER_VARIABLE
from tests.kubernetes_api.recorder import NORMAL, WARNING, Recorder
from tests.kubernetes_api.spec import ClusterSpec, ImageSpec
from tests.kubernetes_api.store import DELETED, Change, Store

LOOPBACK: Final = "127.0.0.1"
POLL_S: Final = 0.05
MAX_BACKOFF_FACTOR: Final = 30  # 10 s grow to 300 s in a real kubelet
FORCED_GRACE_S: Final = 1.0  # what a force-deleted pod's processes get
DEADLINE_REASON: Final = "DeadlineExceeded"  # pkg/kubelet/active_deadline.go
DEADLINE_MESSAGE: Final = "Pod was active on the node longer than the specified deadline"


@dataclass(frozen=True)
class Ending:
    """Why and how a pod is ended. Without a `reason` the phase follows from the exit codes."""

    grace_s: float
    reason: str | None = None
    message: str | None = None
    condition: Object | None = None
    with_statuses: bool = True
    remove: bool = False


class PodWorker:
    """One pod on one node."""

    def __init__(self, kubelet: Kubelet, pod: Object, loopback: str) -> None:
        self._kubelet = kubelet
        self._store = kubelet.store
        self._pod = pod
        self._loopback = loopback
        metadata = pod["metadata"]
        self.address = (PODS, metadata["namespace"], metadata["name"])
        self._folder = kubelet.folder / metadata["uid"]
        host = {} if loopback == LOOPBACK else dict.fromkeys((LOOPBACK, "localhost", "0.0.0.0"), loopback)  # noqa: S104  # not bound
        self._files = PodFilesystem(pod, self._folder, kubelet.spec.claims, host)
        init = pod["spec"].get("initContainers", [])
        reason = "PodInitializing" if init else "ContainerCreating"
        logs = self._folder / "logs"
        self.init = [Container(spec, init=True, waiting_reason=reason, log_folder=logs) for spec in init]
        self.main = [Container(spec, init=False, waiting_reason=reason, log_folder=logs) for spec in pod["spec"]["containers"]]
        self._ending: Ending | None = None
        self._kill_at = 0.0
        self._end_asked = asyncio.Event()
        self._dead_node = False
        self._helpers: set[asyncio.Task[None]] = set()
        self._starting: set[asyncio.Task[None]] = set()
        self.task = asyncio.create_task(self._run())
        self.task.add_done_callback(_report)

    @property
    def containers(self) -> list[Container]:
        """All of them, in the order of their start."""
        return [*self.init, *self.main]

    def end(self, ending: Ending) -> None:
        """End the pod; a second call can shorten the grace period and ask for the removal."""
        kill_at = time.monotonic() + ending.grace_s
        if self._ending is None:
            self._ending, self._kill_at = ending, kill_at
        else:
            self._kill_at = min(self._kill_at, kill_at)
            if ending.remove:
                self._ending = replace(self._ending, remove=True)
        self._end_asked.set()

    def node_died(self, *, keep_running: bool) -> None:
        """No status will be reported any more. `keep_running`: the processes are merely out of reach."""
        self._dead_node = True
        if not keep_running:
            for container in self.containers:
                container.signal(signal.SIGKILL)
            self._end_asked.set()

    async def _run(self) -> None:
        spec = self._pod["spec"]
        self._publish()
        life = asyncio.create_task(self._live())
        asked = asyncio.create_task(self._end_asked.wait())
        await asyncio.wait({life, asked}, timeout=spec.get("activeDeadlineSeconds"), return_when=asyncio.FIRST_COMPLETED)
        if not life.done() and not asked.done():
            self._kubelet.recorder.record(self._pod, NORMAL, DEADLINE_REASON, DEADLINE_MESSAGE)
            self.end(Ending(spec["terminationGracePeriodSeconds"], DEADLINE_REASON, DEADLINE_MESSAGE))
        if not life.done():
            life.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await life
            if self._starting:
                await asyncio.wait(self._starting)
            await self._kill()
        else:
            life.result()
        asked.cancel()
        for helper in self._helpers:
            helper.cancel()
        self._publish(terminal=True)
        self._remove_if_asked()

    def _remove_if_asked(self) -> None:
        """An ended pod stays until somebody deletes it."""
        asked = self._ending is not None and self._ending.remove
        if asked and not self._dead_node and self._current() is not None:
            self._store.remove(*self.address)

    def _current(self) -> Object | None:
        """The pod as it is stored; None when it is gone, whatever has its name now."""
        return self._store.by_uid(self._pod["metadata"]["uid"])

    def clean(self) -> None:
        """The pod object is gone: so are its volumes. Its logs stay, for whoever reads a failed test."""
        shutil.rmtree(self._folder / "volumes", ignore_errors=True)

    async def _live(self) -> None:
        await self._set_up_volumes()
        sidecars: list[asyncio.Task[None]] = []
        try:
            for container in self.init:
                if container.role == "sidecar":
                    sidecars.append(asyncio.create_task(self._supervise(container)))
                    while not container.started:  # noqa: ASYNC110  # it may have ended before a waiter of an event looks
                        await asyncio.sleep(POLL_S)
                else:
                    await self._supervise(container)
                    if container.state["terminated"]["exitCode"] != 0:
                        await self._stop_sidecars(sidecars)
                        return
            async with asyncio.TaskGroup() as group:
                for container in self.main:
                    group.create_task(self._supervise(container))
            await self._stop_sidecars(sidecars)
        finally:
            for sidecar in sidecars:
                sidecar.cancel()

    async def _stop_sidecars(self, supervisors: Sequence[asyncio.Task[None]]) -> None:
        """The pod is done: sidecars end in reverse order of their start, within the pod's grace period."""
        for supervisor in supervisors:
            supervisor.cancel()
        if self._starting:
            await asyncio.wait(self._starting)
        self._kill_at = time.monotonic() + self._pod["spec"]["terminationGracePeriodSeconds"]
        await self._terminate_sidecars()

    async def _kill(self) -> None:
        """The end from outside."""
        running = [container for container in self.containers if container.role != "sidecar" and container.runs]
        for container in running:
            self._kubelet.recorder.record(self._pod, NORMAL, "Killing", f"Stopping container {container.name}", _path(container))
            container.signal(signal.SIGTERM)
        await self._gone(running)
        await self._terminate_sidecars()

    async def _terminate_sidecars(self) -> None:
        for container in reversed(self.init):
            if container.runs:
                self._kubelet.recorder.record(self._pod, NORMAL, "Killing", f"Stopping container {container.name}", _path(container))
                container.signal(signal.SIGTERM)
                await self._gone([container])

    async def _gone(self, containers: Sequence[Container]) -> None:
        """Wait for their end; SIGKILL when the grace period is over."""
        while any(container.runs for container in containers):
            if time.monotonic() >= self._kill_at:
                for container in containers:
                    container.signal(signal.SIGKILL)
            await asyncio.sleep(POLL_S / 5)

    async def _set_up_volumes(self) -> None:
        while True:
            try:
                self._files.set_up(self._store)
            except MountError as error:
                self._kubelet.recorder.record(self._pod, WARNING, "FailedMount", str(error))
                await asyncio.sleep(self._kubelet.spec.backoff_s)
            else:
                return

    async def _supervise(self, container: Container) -> None:
        """Run the container until its restart policy lets it rest. The first restart is immediate, then the wait doubles."""
        backoffs = _backoffs(self._kubelet.spec.backoff_s)
        policy = "Always" if container.role == "sidecar" else self._pod["spec"]["restartPolicy"]
        if container.role == "init" and policy == "Always":
            policy = "OnFailure"
        while True:
            image = await self._pull(container)
            exit_code = await self._run_once(container, image)
            if policy == "Never" or (policy == "OnFailure" and exit_code == 0):
                return
            wait_s = next(backoffs)
            if wait_s:
                self._crash_loop(container, wait_s)
                await asyncio.sleep(wait_s)

    def _crash_loop(self, container: Container, wait_s: float) -> None:
        metadata = self._pod["metadata"]
        pod_text = f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"
        container.wait("CrashLoopBackOff", f"back-off {wait_s:g}s restarting failed container={container.name} pod={pod_text}")
        message = f"Back-off restarting failed container {container.name} in pod {pod_text}"
        self._kubelet.recorder.record(self._pod, WARNING, "BackOff", message, _path(container))
        self._publish()

    async def _pull(self, container: Container) -> ImageSpec:
        images, node = self._kubelet.images, self._pod["spec"]["nodeName"]
        name, policy = container.spec["image"], container.spec["imagePullPolicy"]
        backoffs = _backoffs(self._kubelet.spec.backoff_s)
        next(backoffs)
        while True:
            image = images.find(name)
            if image is not None and policy != "Always" and images.present(node, name):
                self._event(container, NORMAL, "Pulled", f'Container image "{name}" already present on machine')
                return image
            self._event(container, NORMAL, "Pulling", f'Pulling image "{name}"')
            problem = images.pull(node, name)
            if problem is None and image is not None:
                await asyncio.sleep(image.pull_s)
                self._event(container, NORMAL, "Pulled", f'Successfully pulled image "{name}" in {image.pull_s:g}s')
                return image
            await self._pull_failed(container, problem or "not found", next(backoffs))

    async def _pull_failed(self, container: Container, problem: str, wait_s: float) -> None:
        name = container.spec["image"]
        self._event(container, WARNING, "Failed", f'Failed to pull image "{name}": {problem}')
        self._event(container, WARNING, "Failed", f"Error: {ERR_IMAGE_PULL}")
        container.wait(ERR_IMAGE_PULL, problem)
        self._publish()
        await asyncio.sleep(wait_s / 2)
        self._event(container, NORMAL, "BackOff", f'Back-off pulling image "{name}"')
        self._event(container, WARNING, "Failed", f"Error: {IMAGE_PULL_BACK_OFF}")
        container.wait(IMAGE_PULL_BACK_OFF, f'Back-off pulling image "{name}": {ERR_IMAGE_PULL}: {problem}')
        self._publish()
        await asyncio.sleep(wait_s / 2)

    async def _run_once(self, container: Container, image: ImageSpec) -> int:
        variables = await self._environment(container, image)
        words = command(container.spec, image, variables, self._files)
        folder = self._files.working_directory(container.spec)
        self._files.termination_message_path(container.spec).unlink(missing_ok=True)
        problem = _not_executable(words, variables["PATH"])
        if problem:
            container.fail_to_start(problem)
            self._event(container, WARNING, "Failed", f"Error: {problem}")
            self._publish()
            return int(container.state["terminated"]["exitCode"])
        start = asyncio.create_task(self._start(container, words, variables, folder))
        self._starting.add(start)
        start.add_done_callback(self._starting.discard)
        await asyncio.shield(start)
        if container.exited is None:
            raise RuntimeError("the container was not started")
        return await asyncio.shield(container.exited)

    async def _start(self, container: Container, words: Sequence[str], variables: dict[str, str], folder: Path) -> None:
        self._event(container, NORMAL, "Created", f"Container created: {container.name}")
        await container.start(words, variables, folder)
        self._event(container, NORMAL, "Started", "Container started")
        self._publish()
        self._help(self._watch_process(container))
        self._help(self._probe(container))

    async def _environment(self, container: Container, image: ImageSpec) -> dict[str, str]:
        while True:
            try:
                variables = environment(self._store, self._current() or self._pod, container.spec, image, self._files)
            except ConfigError as error:
                container.wait("CreateContainerConfigError", str(error))
                self._event(container, WARNING, "Failed", f"Error: {error}")
                self._publish()
                await asyncio.sleep(self._kubelet.spec.backoff_s)
            else:
                return {**variables, CLUSTER_VARIABLE: self._kubelet.cluster_id}

    async def _watch_process(self, container: Container) -> None:
        if container.process is None:
            raise RuntimeError("no process")
        code = await asyncio.shield(container.process.exited)
        path = self._files.termination_message_path(container.spec)
        container.ended(code, termination_message(container, path, code))
        self._publish()

    async def _probe(self, container: Container) -> None:
        """Startup probe first, then readiness and liveness side by side, for as long as this instance runs."""
        process, spec = container.process, container.spec
        if "startupProbe" in spec:
            problem = await probes.succeeds(spec["startupProbe"], spec, self._loopback)
            if container.process is not process or not container.runs:
                return
            if problem is not None:
                await self._restart(container, "Startup", problem)
                return
            container.started = True
            container.ready = "readinessProbe" not in spec and container.role != "init"
            self._publish()
        async with asyncio.TaskGroup() as group:
            if "readinessProbe" in spec:
                group.create_task(self._follow_readiness(container))
            if "livenessProbe" in spec:
                group.create_task(self._follow_liveness(container))

    async def _follow_readiness(self, container: Container) -> None:
        process, spec = container.process, container.spec["readinessProbe"]
        await asyncio.sleep(spec.get("initialDelaySeconds", 0))
        while container.process is process and container.runs:
            problem = await probes.probe(spec, container.spec, self._loopback)
            if container.process is process and container.runs and container.ready != (problem is None):
                container.ready = problem is None
                if problem is not None:
                    self._event(container, WARNING, "Unhealthy", f"Readiness probe failed: {problem}")
                self._publish()
            await asyncio.sleep(spec["periodSeconds"])

    async def _follow_liveness(self, container: Container) -> None:
        process = container.process
        problem = await probes.fails(container.spec["livenessProbe"], container.spec, self._loopback)
        if container.process is process and container.runs:
            await self._restart(container, "Liveness", problem)

    async def _restart(self, container: Container, kind: str, problem: str) -> None:
        process = container.process
        self._event(container, WARNING, "Unhealthy", f"{kind} probe failed: {problem}")
        self._event(container, NORMAL, "Killing", f"Container {container.name} failed {kind.lower()} probe, will be restarted")
        container.signal(signal.SIGTERM)
        await asyncio.sleep(self._pod["spec"]["terminationGracePeriodSeconds"])
        if container.process is process:
            container.signal(signal.SIGKILL)

    def _help(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._helpers.add(task)
        task.add_done_callback(self._helpers.discard)

    def _event(self, container: Container, kind: str, reason: str, message: str) -> None:
        self._kubelet.recorder.record(self._pod, kind, reason, message, _path(container))

    def _publish(self, *, terminal: bool = False) -> None:
        """Write the pod's status, unless the node cannot reach the API or the pod is gone."""
        if self._dead_node:
            return
        ending = self._ending
        if terminal and ending is not None and all(each.role == "sidecar" or "terminated" in each.state for each in self.init):
            for container in self.containers:
                if "waiting" in container.state and container.role != "init":
                    container.lost()
        if self._current() is not None:
            self._store.update(*self.address, lambda pod: self._write_status(pod, terminal=terminal))

    def _write_status(self, pod: Object, *, terminal: bool) -> None:
        status, ending = pod["status"], self._ending
        init, main = [each.status() for each in self.init], [each.status() for each in self.main]
        phase = pod_status.phase(pod, init, main, terminal=terminal and ending is not None)
        # Reason, phase and condition are sent once all containers have ended: mergePodStatus in pkg/kubelet/status/status_manager.go
        if terminal and ending is not None and ending.reason is not None:
            phase = FAILED
            status |= {"reason": ending.reason, **({"message": ending.message} if ending.message else {})}
        if terminal and ending is not None and ending.condition is not None:
            set_condition(status, ending.condition)
        if status["phase"] not in TERMINAL and (terminal or phase not in TERMINAL):
            status["phase"] = phase
        status.setdefault("startTime", now())
        status |= {"hostIP": LOOPBACK, "hostIPs": [{"ip": LOOPBACK}], "podIP": self._loopback, "podIPs": [{"ip": self._loopback}]}
        if ending is not None and not ending.with_statuses:
            status.pop("containerStatuses", None)
            status.pop("initContainerStatuses", None)
        else:
            status["containerStatuses"] = main
            if init:
                status["initContainerStatuses"] = init
        for condition in pod_status.conditions(pod, init, main, status["phase"]):
            set_condition(status, condition)


class Kubelet:
    """The kubelets of all nodes: told of every change, they start and end the workers of bound pods."""

    def __init__(self, store: Store, spec: ClusterSpec, images: Images, folder: Path, cluster_id: str) -> None:
        self.store = store
        self.spec = spec
        self.images = images
        self.folder = folder
        self.cluster_id = cluster_id
        self.recorder = Recorder(store, "kubelet")
        self.workers: dict[str, PodWorker] = {}
        self.under_pressure: dict[str, str] = {}
        self.unreachable: set[str] = set()
        self._last_loopback = int(IPv4Address(LOOPBACK)) + 0x10000 + secrets.randbelow(0xF00000)  # clusters side by side do not meet
        store.subscribe(self._changed)

    def worker(self, namespace: str, name: str) -> PodWorker:
        """The worker of a pod. Raises ApiError (404) when no node runs it."""
        pod = self.store.get(PODS, namespace, name)
        worker = self.workers.get(pod["metadata"]["uid"])
        if worker is None:
            raise errors.not_found(PODS, name)
        return worker

    def on(self, node: str) -> list[Object]:
        """Pods bound to a node."""
        return self.store.find(PODS, matches=lambda pod: pod["spec"].get("nodeName") == node)

    def _changed(self, change: Change) -> None:
        if change.resource != PODS:
            return
        pod, uid = change.item, change.item["metadata"]["uid"]
        node = pod["spec"].get("nodeName")
        worker = self.workers.get(uid)
        if node in self.unreachable:
            return
        if change.kind == DELETED:
            if worker is not None:
                worker.end(Ending(FORCED_GRACE_S))
                worker.task.add_done_callback(lambda _: self._forget(uid))
        elif node and worker is None and pod["status"]["phase"] not in TERMINAL:
            if node in self.under_pressure:
                self._reject(pod, node)
            else:
                self.workers[uid] = PodWorker(self, pod, self._address())
        elif worker is not None and "deletionTimestamp" in pod["metadata"]:
            worker.end(Ending(pod["metadata"]["deletionGracePeriodSeconds"], remove=True))

    def _reject(self, pod: Object, node: str) -> None:
        """rejectPod in pkg/kubelet/kubelet.go: no container has a status, and the phase is Failed at once."""
        message = f"The node had condition: [{self.under_pressure[node]}]. "
        self.recorder.record(pod, WARNING, "Evicted", message)
        status = {"phase": FAILED, "reason": "Evicted", "message": f"Pod was rejected: {message}", "startTime": now()}

        def reject(body: Object) -> None:
            body["status"] = {"qosClass": body["status"]["qosClass"], "conditions": body["status"]["conditions"], **status}

        self.store.update(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"], reject)

    def _forget(self, uid: str) -> None:
        worker = self.workers.pop(uid, None)
        if worker is not None:
            worker.clean()

    def _address(self) -> str:
        if not self.spec.private_loopback:
            return LOOPBACK
        self._last_loopback += 1
        return str(IPv4Address(self._last_loopback))


def _report(task: asyncio.Task[None]) -> None:
    """A mistake of the fake goes to the server's log at once."""
    if not task.cancelled() and (error := task.exception()) is not None:
        traceback.print_exception(error)


def _backoffs(first_s: float) -> Iterator[float]:
    yield 0.0
    wait_s = first_s
    while True:
        yield wait_s
        wait_s = min(2 * wait_s, MAX_BACKOFF_FACTOR * first_s)


def _path(container: Container) -> str:
    return f"spec.{'containers' if container.role == 'main' else 'initContainers'}{{{container.name}}}"


def _not_executable(words: Sequence[str], path: str) -> str | None:
    """runc's sentence for a command that is not there."""
    prefix = "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
    if not words:
        return f"{prefix}no command specified"
    if shutil.which(words[0], path=path) is None:
        place = "stat" if "/" in words[0] else "executable file not found in $PATH"
        detail = f'exec: "{words[0]}": {"stat " + words[0] + ": no such file or directory" if place == "stat" else place}'
        return f"{prefix}unable to start container process: error during container init: {detail}"
    return None
