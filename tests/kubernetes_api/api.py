"""The HTTP API on the store: paths, verbs, patches, watches and logs of kube-apiserver.

https://kubernetes.io/docs/reference/using-api/api-concepts/.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from aiohttp import web

from tests.kubernetes_api import errors
from tests.kubernetes_api.admission import admit, check_update, decoded_strings
from tests.kubernetes_api.discovery import discovery
from tests.kubernetes_api.faults import Faults, RequestFault
from tests.kubernetes_api.images import ERR_IMAGE_PULL, IMAGE_PULL_BACK_OFF, Images
from tests.kubernetes_api.kubelet import Kubelet
from tests.kubernetes_api.logs import ContainerLog, LogOptions
from tests.kubernetes_api.objects import (
    NAMESPACES,
    NANOSECONDS,
    PODS,
    RESOURCES,
    SECRETS,
    Object,
    Resource,
    disruption,
    named,
    set_condition,
)
from tests.kubernetes_api.patches import MERGE_PATCH, STRATEGIC_MERGE_PATCH, merge_patch, strategic_merge_patch
from tests.kubernetes_api.selectors import Matcher, both, field_selector, label_selector
from tests.kubernetes_api.spec import ClusterSpec
from tests.kubernetes_api.store import Change, Store, delete

TOKEN: Final = "fake-cluster-token"  # a token of a server that lives as long as a test
EVICTION_CONDITION: Final = disruption("EvictionByEvictionAPI", "Eviction API: evicting")
_RESET: Final = struct.pack("ii", 1, 0)
_BY_PATH: Final = {(resource.root, resource.plural): resource for resource in RESOURCES}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Target:
    """What a path names."""

    resource: Resource
    namespace: str | None
    name: str | None
    subresource: str | None


def target_of(path: str) -> Target | None:
    """`/api/v1/namespaces/NS/pods/NAME/log` in parts; None when it is no resource's path."""
    parts = [part for part in path.split("/") if part]
    depth = 2 if parts[:1] == ["api"] else 3
    root, rest = "/" + "/".join(parts[:depth]), parts[depth:]
    namespace = None
    if rest[:1] == ["namespaces"] and len(rest) >= 3 and (root, rest[2]) in _BY_PATH:
        namespace, rest = rest[1], rest[2:]
    resource = _BY_PATH.get((root, rest[0])) if rest else None
    if resource is None or len(rest) > 3 or (len(rest) > 1 and resource.namespaced and namespace is None):
        return None
    return Target(resource, namespace, rest[1] if len(rest) > 1 else None, rest[2] if len(rest) > 2 else None)


@dataclass(frozen=True, eq=False)
class Stream:
    """An answer that goes on."""

    kind: str
    task: asyncio.Task[Any]
    request: web.Request


class Streams:
    """Open watches and followed logs."""

    def __init__(self) -> None:
        self._open: set[Stream] = set()

    @contextlib.contextmanager
    def opened(self, kind: str, request: web.Request) -> Iterator[None]:
        """While a stream is open; a dropped one ends by itself in good order."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("not in a task")
        entry = Stream(kind, task, request)
        self._open.add(entry)
        try:
            yield
        except asyncio.CancelledError:
            if entry in self._open:
                raise
        finally:
            self._open.discard(entry)

    def drop(self, kind: str, reset: bool) -> int:
        """End all streams of a kind: with a connection reset, or as if the server's time was up."""
        dropped = [entry for entry in self._open if entry.kind == kind]
        for entry in dropped:
            self._open.discard(entry)
            if reset:
                reset_connection(entry.request)
            entry.task.cancel()
        return len(dropped)


def reset_connection(request: web.Request) -> None:
    """RST, not FIN."""
    transport = request.transport
    if transport is None:
        return
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


class Api:
    """Handlers of one cluster's API."""

    def __init__(self, spec: ClusterSpec, store: Store, kubelet: Kubelet, images: Images) -> None:
        self._spec = spec
        self._store = store
        self._kubelet = kubelet
        self._streams = Streams()
        self.faults = Faults(store, kubelet, images, self._streams.drop)

    def application(self) -> web.Application:
        """Everything under one handler: paths are taken apart by `target_of`."""
        application = web.Application(middlewares=[self._guard], client_max_size=3 * 1024**2)  # 3 MiB: the real limit of a body
        application.router.add_route("*", "/{path:.*}", self._handle)
        return application

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if request.path.startswith("/_test/"):
                return web.json_response(self.faults.apply(request.path.removeprefix("/_test/"), await request.json()))
            if request.path in {"/healthz", "/livez", "/readyz"}:
                return web.Response(text="ok")
            if request.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise errors.unauthorized()
            fault = self.faults.of_request(request.method, request.path_qs)
            if fault is not None and not fault.after:
                return _failed(fault, request)
            answer = await handler(request)
            return _failed(fault, request) if fault is not None else answer
        except errors.ApiError as error:
            return web.json_response(error.status, status=error.code, headers=error.headers)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            refused = errors.bad_request(f"the object provided is unrecognized: {error}")
            return web.json_response(refused.status, status=refused.code)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        found = discovery(request.path.rstrip("/") or "/", self._spec.version)
        if found is not None:
            return web.json_response(found)
        target = target_of(request.path)
        if target is None:
            raise errors.ApiError(404, "NotFound", "the server could not find the requested resource")
        if target.subresource is not None:
            return await self._subresource(request, target)
        if target.name is None:
            return await self._collection(request, target)
        return await self._item(request, target)

    async def _collection(self, request: web.Request, target: Target) -> web.StreamResponse:
        matches = _selected(request, target.resource)
        if request.method == "GET":
            if request.query.get("watch") in {"true", "1", "True"}:
                return await self._watch(request, target, matches)
            items = self._store.find(target.resource, target.namespace, matches)
            return web.json_response(self._listed(target.resource, items))
        if request.method == "POST" and target.resource.namespaced and target.namespace is not None:
            self._store.get(NAMESPACES, "", target.namespace)
            item = admit(target.resource, target.namespace, await request.json(), self._spec)
            if "dryRun" in request.query:
                return web.json_response(item, status=201)
            created = self._store.create(target.resource, target.namespace, item)
            self._collect_absent_owners(target.resource, created)
            return web.json_response(created, status=201)
        if request.method == "DELETE" and target.resource.namespaced:
            items = self._store.find(target.resource, target.namespace, matches)
            options = await _delete_options(request)
            for item in items:
                delete(self._store, target.resource, item, options.get("gracePeriodSeconds"))
            return web.json_response(self._listed(target.resource, items))
        raise errors.method_not_allowed(f"{request.method} is not supported on {target.resource.plural} here")

    def _listed(self, resource: Resource, items: list[Object]) -> Object:
        bare = [{key: value for key, value in item.items() if key not in {"kind", "apiVersion"}} for item in items]
        metadata = {"resourceVersion": str(self._store.version)}
        return {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata, "items": bare}

    def _collect_absent_owners(self, resource: Resource, item: Object) -> None:
        """The garbage collector deletes an object whose owners are all absent; kinds that this server does not have are left alone."""
        known = {each.kind for each in RESOURCES}
        owners = item["metadata"].get("ownerReferences", [])
        if owners and all(owner["kind"] in known and self._store.by_uid(owner["uid"]) is None for owner in owners):
            asyncio.get_running_loop().call_soon(self._delete_again, resource, item)

    def _delete_again(self, resource: Resource, item: Object) -> None:
        with contextlib.suppress(errors.ApiError):
            delete(self._store, resource, item)

    async def _item(self, request: web.Request, target: Target) -> web.StreamResponse:
        namespace, name = target.namespace or "", target.name or ""
        old = self._store.get(target.resource, namespace, name)
        if request.method == "GET":
            return web.json_response(old)
        if request.method == "DELETE" and target.resource.namespaced:
            return await self._delete(request, target, old)
        if request.method == "PATCH":
            new = await _patched(request, old)
        elif request.method == "PUT":
            new = {**await request.json(), "kind": target.resource.kind, "apiVersion": target.resource.api_version}
            # The same instant can be written in several ways.
            new["metadata"] = {**new["metadata"], **{field: old["metadata"][field] for field in ("uid", "creationTimestamp")}}
        else:
            raise errors.method_not_allowed(f"{request.method} is not supported on {target.resource.plural} here")
        if target.resource == SECRETS:
            decoded_strings(new)
        if "status" in old:
            new = {**new, "status": old["status"]}  # has a subresource of its own
        return web.json_response(self._replace(target.resource, old, new))

    def _replace(self, resource: Resource, old: Object, new: Object) -> Object:
        check_update(resource, old, new, self._spec.version)
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        return self._store.update(resource, old["metadata"].get("namespace", ""), old["metadata"]["name"], lambda _: new)

    async def _delete(self, request: web.Request, target: Target, item: Object) -> web.StreamResponse:
        options = await _delete_options(request)
        metadata, wanted = item["metadata"], options.get("preconditions") or {}
        for field, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
            if wanted.get(field) not in {None, metadata[field]}:
                why = f"the {label} in the precondition ({wanted[field]}) does not match the {label} in record ({metadata[field]})."
                raise errors.conflict(target.resource, metadata["name"], f"Precondition failed: {why}")
        orphan = options.get("propagationPolicy") == "Orphan"
        removed = delete(self._store, target.resource, item, options.get("gracePeriodSeconds"), dependents=not orphan)
        if target.resource == PODS:
            return web.json_response(removed)
        return web.json_response(errors.success(target.resource, metadata["name"], metadata["uid"]))

    async def _subresource(self, request: web.Request, target: Target) -> web.StreamResponse:
        item = self._store.get(target.resource, target.namespace or "", target.name or "")
        match target.resource, target.subresource, request.method:
            case resource, "status", "GET" if "status" in item:
                return web.json_response(item)
            case resource, "status", "PATCH" if "status" in item:
                patched = await _patched(request, item)
                return web.json_response(self._replace(resource, item, {**item, "status": patched["status"]}))
            case resource, "status", "PUT" if "status" in item:
                body = await request.json()
                return web.json_response(self._replace(resource, item, {**item, "status": body["status"]}))
            case resource, "log", "GET" if resource == PODS:
                return await self._log(request, item)
            case resource, "eviction", "POST" if resource == PODS:
                return await self._evict(request, item)
        raise errors.ApiError(404, "NotFound", "the server could not find the requested resource")

    async def _evict(self, request: web.Request, pod: Object) -> web.StreamResponse:
        """pkg/registry/core/pod/storage/eviction.go, without disruption budgets."""
        options = (await request.json()).get("deleteOptions") or {}
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        self._store.update(PODS, namespace, name, lambda item: set_condition(item["status"], EVICTION_CONDITION))
        delete(self._store, PODS, self._store.get(PODS, namespace, name), options.get("gracePeriodSeconds"))
        return web.json_response({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, status=201)

    async def _watch(self, request: web.Request, target: Target, matches: Matcher) -> web.StreamResponse:
        version = request.query.get("resourceVersion", "")
        since = int(version) if version not in {"", "0"} else None
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        try:
            missed, queue = self._store.watch(since)
        except errors.ApiError as error:  # a watch cache sends the refusal as an event: newErrWatcher in apiserver's pkg/storage/cacher
            await stream.prepare(request)
            await _send(stream, "ERROR", error.status)
            return stream
        start = [] if since is not None else self._store.find(target.resource, target.namespace, matches)
        timeout_s = float(request.query.get("timeoutSeconds", "1800"))
        await stream.prepare(request)
        with self._streams.opened("watch", request):
            try:
                async with asyncio.timeout(timeout_s):
                    for item in start:
                        await _send(stream, "ADDED", item)
                    for change in missed:
                        await _send_change(stream, change, target, matches)
                    while True:
                        await _send_change(stream, await queue.get(), target, matches)
            except (TimeoutError, ConnectionResetError):
                pass  # the time is up, or the watcher has gone
            finally:
                self._store.unwatch(queue)
        return stream

    async def _log(self, request: web.Request, pod: Object) -> web.StreamResponse:
        name = _log_container(pod, request.query.get("container", ""))
        options = _log_options(request)
        if not pod["spec"].get("nodeName"):
            return web.Response(status=204)
        log = self._container_log(pod, name, previous=request.query.get("previous") in {"true", "True"})
        stream = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await stream.prepare(request)
        with self._streams.opened("log", request), contextlib.suppress(ConnectionResetError):
            async for chunk in log.read(options):
                await stream.write(chunk)
        return stream

    def _container_log(self, pod: Object, name: str, *, previous: bool) -> ContainerLog:
        """validateContainerLogStatus in pkg/kubelet/kubelet_pods.go."""
        pod_name = pod["metadata"]["name"]
        worker = self._kubelet.workers.get(pod["metadata"]["uid"])
        reported = [*pod["status"].get("initContainerStatuses", []), *pod["status"].get("containerStatuses", [])]
        container = next((each for each in worker.containers if each.name == name), None) if worker is not None else None
        if container is None or named(reported, name) is None:
            raise errors.bad_request(f'container "{name}" in pod "{pod_name}" is not available')
        if previous:
            log = container.log if "waiting" in container.state else container.previous_log
            if log is None:
                raise errors.bad_request(f'previous terminated container "{name}" in pod "{pod_name}" not found')
            return log
        if container.log is None:
            reason = container.state.get("waiting", {}).get("reason", "")
            shown = {ERR_IMAGE_PULL: "image can't be pulled", IMAGE_PULL_BACK_OFF: "trying and failing to pull image"}.get(reason, reason)
            raise errors.bad_request(f'container "{name}" in pod "{pod_name}" is waiting to start: {shown}')
        return container.log


def _failed(fault: RequestFault, request: web.Request) -> web.StreamResponse:
    match fault.kind:
        case "500":
            raise errors.internal_error("etcdserver: request timed out")
        case "503":
            raise errors.unavailable("the server is currently unable to handle the request")
        case "429":
            raise errors.too_many_requests(1)
        case "401":
            raise errors.unauthorized()
        case "reset":
            reset_connection(request)
            return web.Response()
        case _:
            raise errors.bad_request(f"there is no request fault {fault.kind}")


def _selected(request: web.Request, resource: Resource) -> Matcher:
    return both(label_selector(request.query.get("labelSelector", "")), field_selector(resource, request.query.get("fieldSelector", "")))


async def _send(stream: web.StreamResponse, kind: str, item: Mapping[str, Any]) -> None:
    await stream.write(json.dumps({"type": kind, "object": item}).encode() + b"\n")


async def _send_change(stream: web.StreamResponse, change: Change, target: Target, matches: Matcher) -> None:
    if change.resource != target.resource or target.namespace not in {None, change.item["metadata"].get("namespace", "")}:
        return
    if (seen := change.seen_through(matches)) is not None:
        await _send(stream, *seen)


async def _patched(request: web.Request, old: Object) -> Object:
    patch = json.loads(await request.read())
    if request.content_type == MERGE_PATCH:
        new: Object = merge_patch(old, patch)
    elif request.content_type == STRATEGIC_MERGE_PATCH:
        new = strategic_merge_patch(old, patch)
    else:
        raise errors.unsupported_media_type(request.content_type, (MERGE_PATCH, STRATEGIC_MERGE_PATCH))
    return new


async def _delete_options(request: web.Request) -> Object:
    body = await request.read()
    options: Object = json.loads(body) if body else {}
    if "gracePeriodSeconds" in request.query:
        options.setdefault("gracePeriodSeconds", int(request.query["gracePeriodSeconds"]))
    if "propagationPolicy" in request.query:
        options.setdefault("propagationPolicy", request.query["propagationPolicy"])
    return options


def _log_container(pod: Object, asked: str) -> str:
    """LogLocation in pkg/registry/core/pod/strategy.go."""
    name = pod["metadata"]["name"]
    main = [container["name"] for container in pod["spec"]["containers"]]
    init = [container["name"] for container in pod["spec"].get("initContainers", [])]
    if not asked and len(main) == 1:
        return str(main[0])
    if not asked:
        others = f" or one of the init containers: [{' '.join(init)}]" if init else ""
        raise errors.bad_request(f"a container name must be specified for pod {name}, choose one of: [{' '.join(main)}]{others}")
    if asked not in {*main, *init}:
        raise errors.bad_request(f"container {asked} is not valid for pod {name}")
    return asked


def _log_options(request: web.Request) -> LogOptions:
    query = request.query
    since_ns = None
    if "sinceSeconds" in query:
        since_ns = time.time_ns() - int(query["sinceSeconds"]) * NANOSECONDS
    elif "sinceTime" in query:
        since_ns = int(datetime.fromisoformat(query["sinceTime"]).timestamp() * NANOSECONDS)
    return LogOptions(
        follow=query.get("follow") in {"true", "True"},
        timestamps=query.get("timestamps") in {"true", "True"},
        since_ns=since_ns,
        tail_lines=int(query["tailLines"]) if "tailLines" in query else None,
        limit_bytes=int(query["limitBytes"]) if "limitBytes" in query else None,
    )
