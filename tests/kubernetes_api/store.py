"""The objects of a cluster with their versions and history: what etcd and the watch cache are to a real one."""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.kubernetes_api import errors
from tests.kubernetes_api.objects import PODS, TERMINAL, Object, Resource, now
from tests.kubernetes_api.selectors import Matcher

ADDED, MODIFIED, DELETED = "ADDED", "MODIFIED", "DELETED"


@dataclass(frozen=True)
class Change:
    """One change: the object after it (before it, when it was deleted) and the one that it replaced."""

    kind: str
    resource: Resource
    item: Object
    previous: Object | None
    version: int

    def seen_through(self, matches: Matcher) -> tuple[str, Object] | None:
        """The watch event for a watcher with a selector: objects come into its sight and leave it."""
        before = self.previous is not None and matches(self.previous)
        after = self.kind != DELETED and matches(self.item)
        if before and after:
            return MODIFIED, self.item
        if after:
            return ADDED, self.item
        return (DELETED, self.item) if before else None


class Store:
    """Objects by (resource, namespace, name). What it hands out must not be changed: `update` makes a new object.

    `history` changes are kept for watchers that come back; `subscribe` is for the controllers, which are told in the same instant.
    """

    def __init__(self, history: int) -> None:
        self._items: dict[tuple[Resource, str, str], Object] = {}
        self._version = 0
        self._forgotten = 0
        self._history: deque[Change] = deque(maxlen=history)
        self._listeners: list[Callable[[Change], None]] = []
        self._watchers: set[asyncio.Queue[Change]] = set()

    @property
    def version(self) -> int:
        """The newest resource version."""
        return self._version

    def subscribe(self, listener: Callable[[Change], None]) -> None:
        """Tell `listener` of every change from now on."""
        self._listeners.append(listener)

    def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """Raises ApiError (404) when there is none."""
        item = self._items.get((resource, namespace, name))
        if item is None:
            raise errors.not_found(resource, name)
        return item

    def find(self, resource: Resource, namespace: str | None = None, matches: Matcher | None = None) -> list[Object]:
        """Ordered by namespace and name, as the real API lists."""
        found = [
            item
            for (kind, space, _), item in self._items.items()
            if kind == resource and namespace in {None, space} and (matches is None or matches(item))
        ]
        return sorted(found, key=lambda item: (item["metadata"].get("namespace", ""), item["metadata"]["name"]))

    def by_uid(self, uid: str) -> Object | None:
        """The object with this uid."""
        return next((item for item in self._items.values() if item["metadata"]["uid"] == uid), None)

    def create(self, resource: Resource, namespace: str, body: Object) -> Object:
        """Raises ApiError (409) when the name is taken."""
        name = body["metadata"]["name"]
        key = (resource, namespace, name)
        if key in self._items:
            raise errors.already_exists(resource, name)
        item = copy.deepcopy(body)
        item = {"kind": resource.kind, "apiVersion": resource.api_version, **item}
        item["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
        if resource.namespaced:
            item["metadata"]["namespace"] = namespace
        self._changed(ADDED, key, item, None)
        return item

    def update(self, resource: Resource, namespace: str, name: str, change: Callable[[Object], Object | None]) -> Object:
        """`change` edits a copy, or gives the object to put in its place. No change, no new version. Raises ApiError (404)."""
        old = self.get(resource, namespace, name)
        new = copy.deepcopy(old)
        new = change(new) or new
        if new != old:
            self._changed(MODIFIED, (resource, namespace, name), new, old)
        return new

    def remove(self, resource: Resource, namespace: str, name: str) -> Object:
        """Raises ApiError (404) when there is none."""
        old = self.get(resource, namespace, name)
        item = copy.deepcopy(old)
        self._changed(DELETED, (resource, namespace, name), item, old)
        return item

    def _changed(self, kind: str, key: tuple[Resource, str, str], item: Object, previous: Object | None) -> None:
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)
        if kind == DELETED:
            del self._items[key]
        else:
            self._items[key] = item
        change = Change(kind, key[0], item, previous, self._version)
        if len(self._history) == self._history.maxlen:
            self._forgotten = self._history[0].version
        self._history.append(change)
        for watcher in self._watchers:
            watcher.put_nowait(change)
        for listener in self._listeners:
            listener(change)

    def compact(self) -> None:
        """Forget the history: a watch from any version before this one gets 410."""
        self._forgotten = self._version
        self._history.clear()

    def watch(self, since: int | None) -> tuple[list[Change], asyncio.Queue[Change]]:
        """(what happened after version `since`, a queue of what happens from now on); close with `unwatch`.

        Raises:
            ApiError: 410, `since` is older than the history.
        """
        if since is not None and since < self._forgotten:
            raise errors.expired(since, self._forgotten)
        missed = [] if since is None else [change for change in self._history if change.version > since]
        queue: asyncio.Queue[Change] = asyncio.Queue()
        self._watchers.add(queue)
        return missed, queue

    def unwatch(self, queue: asyncio.Queue[Change]) -> None:
        """The watcher has gone."""
        self._watchers.discard(queue)

    def dependents(self, uid: str) -> Iterator[tuple[Resource, Object]]:
        """Objects that name `uid` as an owner."""
        for (resource, _, _), item in list(self._items.items()):
            if any(owner["uid"] == uid for owner in item["metadata"].get("ownerReferences", [])):
                yield resource, item


def delete(store: Store, resource: Resource, item: Object, grace_period_s: int | None = None, *, dependents: bool = True) -> Object:
    """Delete an object as the API does it: a pod on a node gets its grace period first, the rest goes at once.

    The kubelet removes the pod when its containers have ended (BeforeDelete in apiserver's pkg/registry/rest/delete.go, CheckGracefulDelete
    in pkg/registry/core/pod/strategy.go). With `dependents`, what the object owns is deleted in the background; otherwise it is orphaned.
    """
    namespace, name = item["metadata"].get("namespace", ""), item["metadata"]["name"]
    if resource == PODS:
        grace_s = _grace_s(item, grace_period_s)
        if grace_s > 0:
            return store.update(resource, namespace, name, lambda pod: _mark_deleted(pod, grace_s))
    removed = store.remove(resource, namespace, name)
    for kind, dependent in list(store.dependents(item["metadata"]["uid"])):
        _collect(store, kind, dependent, item["metadata"]["uid"], dependents=dependents)
    return removed


def _grace_s(pod: Object, asked_s: int | None) -> int:
    if not pod["spec"].get("nodeName") or pod["status"]["phase"] in TERMINAL:
        return 0
    return int(pod["spec"]["terminationGracePeriodSeconds"]) if asked_s is None else asked_s


def _mark_deleted(pod: Object, grace_s: int) -> None:
    metadata = pod["metadata"]
    if grace_s < metadata.get("deletionGracePeriodSeconds", grace_s + 1):  # a later delete can only shorten it
        metadata |= {"deletionTimestamp": now(grace_s), "deletionGracePeriodSeconds": grace_s}


def _collect(store: Store, resource: Resource, item: Object, owner_uid: str, *, dependents: bool) -> None:
    others = [owner for owner in item["metadata"]["ownerReferences"] if owner["uid"] != owner_uid]
    if dependents and not any(store.by_uid(owner["uid"]) for owner in others):
        delete(store, resource, item)
        return

    def disown(body: Object) -> None:
        if others:
            body["metadata"]["ownerReferences"] = others
        else:
            del body["metadata"]["ownerReferences"]

    store.update(resource, item["metadata"].get("namespace", ""), item["metadata"]["name"], disown)
