"""A fake cluster for a test: started and stopped here, reached with the real `kubernetes` client, broken through the methods of
`FakeCluster`."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import kubernetes.client
import kubernetes.config
import psutil
import yaml

from assets.benchmark.guard import guarded
from tests.kubernetes_api.api import TOKEN
from tests.kubernetes_api.processes import CLUSTER_VARIABLE, kill_marked, marked
from tests.kubernetes_api.server import SPEC_NAME
from tests.kubernetes_api.spec import ClusterSpec, ImageSpec, NodeSpec

REPOSITORY: Final = Path(__file__).resolve().parents[2]
STOP_TIMEOUT_S: Final = 20
NAMESPACE: Final = "default"

RequestFaultKind = Literal["500", "503", "429", "401", "reset"]


def project_image(prefix: str) -> ImageSpec:
    """An image in which `python` is this interpreter with this project on its path."""
    return ImageSpec(prefix, path=(str(Path(sys.executable).parent),), environment={"PYTHONPATH": str(REPOSITORY)})


@dataclass(frozen=True)
class FakeCluster:
    """A running cluster. The methods below `processes` are the faults of faults.py; a pod is in the namespace `default` unless told."""

    url: str
    kubeconfig: Path
    folder: Path
    cluster_id: str

    def core(self) -> kubernetes.client.CoreV1Api:
        """The real client."""
        return kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config(config_file=str(self.kubeconfig)))

    def batch(self) -> kubernetes.client.BatchV1Api:
        """The real client."""
        return kubernetes.client.BatchV1Api(kubernetes.config.new_client_from_config(config_file=str(self.kubeconfig)))

    def processes(self) -> list[psutil.Process]:
        """Every process that the pods of this cluster have started and that still runs."""
        return marked(CLUSTER_VARIABLE, self.cluster_id)

    def cordon(self, node: str, *, unschedulable: bool = True) -> None:
        """No new pods on the node."""
        self._fault("cordon", node=node, unschedulable=unschedulable)

    def add_node(self, node: NodeSpec) -> None:
        """A new node: waiting pods may fit there."""
        self._fault("add-node", **asdict(node))

    def lose_node(self, node: str) -> None:
        """The machine is gone: processes dead, pods marked as failed and removed by PodGC, node removed."""
        self._fault("lose-node", node=node)

    def shut_down_node(self, node: str) -> None:
        """Graceful shutdown: pods end as Failed with reason Terminated and stay."""
        self._fault("shut-down-node", node=node)

    def disconnect_node(self, node: str, *, keep_running: bool) -> None:
        """The node is out of reach: pods stay Terminating (NodeLost). `keep_running`: their processes run on."""
        self._fault("disconnect-node", node=node, keep_running=keep_running)

    def pressure(self, node: str, condition: str | None) -> None:
        """The node rejects new pods: Failed, Evicted, no container statuses. None ends it."""
        self._fault("pressure", node=node, condition=condition)

    def preempt(self, pod: str, *, by: str = "high-priority", namespace: str = NAMESPACE) -> None:
        """For a pod of higher priority: DisruptionTarget/PreemptionByScheduler, SIGTERM, grace period, gone."""
        self._fault("preempt", namespace=namespace, name=pod, by=by)

    def reclaim(self, pod: str, *, namespace: str = NAMESPACE) -> None:
        """A spot machine is taken back: SIGTERM, grace period, Failed with DisruptionTarget/TerminationByKubelet, gone."""
        self._fault("reclaim", namespace=namespace, name=pod)

    def evict(self, pod: str, *, with_statuses: bool = True, message: str | None = None, namespace: str = NAMESPACE) -> None:
        """Node pressure: the pod stays as Failed/Evicted."""
        self._fault("evict", namespace=namespace, name=pod, with_statuses=with_statuses, message=message)

    def vanish(self, pod: str, *, namespace: str = NAMESPACE) -> None:
        """The pod is gone at once, object and processes."""
        self._fault("vanish", namespace=namespace, name=pod)

    def unpullable(self, prefix: str, *, attempts: int | None = None, message: str | None = None) -> None:
        """Pulls of these images fail `attempts` times, or for ever; 0 ends it."""
        self._fault("unpullable", prefix=prefix, attempts=attempts, message=message)

    def oom_kill(self, pod: str, container: str, *, namespace: str = NAMESPACE) -> None:
        """OOMKilled, 137."""
        self._fault("oom-kill", namespace=namespace, name=pod, container=container)

    def signal(self, pod: str, container: str, number: int, *, namespace: str = NAMESPACE) -> None:
        """A signal to a container's first process: SIGSEGV for a crash."""
        self._fault("signal", namespace=namespace, name=pod, container=container, number=number)

    def fail_requests(
        self,
        kind: RequestFaultKind,
        *,
        count: int = 1,
        methods: Sequence[str] = ("GET", "POST", "PATCH", "PUT", "DELETE"),
        path: str = "",
        after: bool = False,
    ) -> None:
        """The next `count` requests whose path fits the regular expression fail; with `after`, when they have taken effect."""
        self._fault("fail-requests", kind=kind, count=count, methods=list(methods), path=path, after=after)

    def drop_streams(self, kind: Literal["watch", "log"], *, reset: bool = False) -> int:
        """End the open watches or followed logs; gives their number."""
        dropped: int = self._fault("drop-streams", kind=kind, reset=reset)["dropped"]
        return dropped

    def compact(self) -> None:
        """Watches from a version before now get 410 Gone."""
        self._fault("compact")

    def _fault(self, fault: str, **body: Any) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.url}/_test/{fault}", json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310  # our own server
        with urllib.request.urlopen(request) as answer:  # noqa: S310  # our own server
            result: dict[str, Any] = json.load(answer)
        return result


@contextmanager
def running_cluster(spec: ClusterSpec, parent: Path) -> Iterator[FakeCluster]:
    """A cluster in a process of its own, its files in a new folder of `parent`. When it ends, so do all processes of its pods."""
    cluster_id = f"cluster-{uuid.uuid4().hex[:8]}"
    folder = parent / cluster_id
    folder.mkdir(parents=True)
    spec.write(folder / SPEC_NAME)
    command = guarded([sys.executable, "-m", "tests.kubernetes_api.server", str(folder)])
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=REPOSITORY)
    try:
        if process.stdout is None:
            raise RuntimeError("no pipe from the server")
        port = process.stdout.readline().strip()
        if not port:
            raise RuntimeError(f"the fake cluster did not start:\n{(folder / 'server.log').read_text()}")
        url = f"http://127.0.0.1:{port}"
        yield FakeCluster(url, _write_kubeconfig(folder / "kubeconfig", url), folder, cluster_id)
    finally:
        process.terminate()
        try:
            process.communicate(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        kill_marked(CLUSTER_VARIABLE, cluster_id)


def _write_kubeconfig(path: Path, url: str) -> Path:
    context = {"cluster": "fake", "user": "test", "namespace": NAMESPACE}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "fake",
        "clusters": [{"name": "fake", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": {"token": TOKEN}}],
        "contexts": [{"name": "fake", "context": context}],
    }
    path.write_text(yaml.safe_dump(config))
    return path
