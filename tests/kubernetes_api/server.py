"""The process of a fake cluster: `python -m tests.kubernetes_api.server FOLDER`, where FOLDER/cluster.json says what it is.

Prints its port, serves until SIGTERM or until its parent has died, and leaves no process of a pod behind.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from aiohttp import web

from tests.kubernetes_api.api import Api
from tests.kubernetes_api.images import Images
from tests.kubernetes_api.kubelet import LOOPBACK, Kubelet
from tests.kubernetes_api.nodes import node_object
from tests.kubernetes_api.objects import CLAIMS, NAMESPACES, NODES
from tests.kubernetes_api.processes import CLUSTER_VARIABLE, kill_marked
from tests.kubernetes_api.scheduler import Scheduler
from tests.kubernetes_api.spec import ClusterSpec
from tests.kubernetes_api.store import Store

SPEC_NAME = "cluster.json"


def build(spec: ClusterSpec, folder: Path, cluster_id: str) -> Api:
    """A cluster with its namespaces, nodes and claims."""
    store = Store(spec.history)
    images = Images(spec.images)
    kubelet = Kubelet(store, spec, images, folder / "pods", cluster_id)
    Scheduler(store)
    for namespace in spec.namespaces:
        store.create(NAMESPACES, "", {"metadata": {"name": namespace}, "status": {"phase": "Active"}})
        for claim in spec.claims:
            body = {"metadata": {"name": claim}, "spec": {"accessModes": ["ReadWriteMany"]}, "status": {"phase": "Bound"}}
            store.create(CLAIMS, namespace, body)
    for node in spec.nodes:
        store.create(NODES, "", node_object(node))
    return Api(spec, store, kubelet, images)


async def serve(folder: Path) -> None:
    """Until SIGTERM."""
    spec = ClusterSpec.read(folder / SPEC_NAME)
    cluster_id = folder.name
    api = build(spec, folder, cluster_id)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    runner = web.AppRunner(api.application(), shutdown_timeout=0, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, LOOPBACK, 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await stopped.wait()
    kill_marked(CLUSTER_VARIABLE, cluster_id)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
