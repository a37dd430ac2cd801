"""What a test declares of its cluster. Written as JSON for the server's process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class NodeSpec:
    """A node. `taints` are Kubernetes taints ({key, value, effect}); `allocatable` are quantities by resource name."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Mapping[str, str], ...] = ()
    allocatable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageSpec:
    """Stands for every image whose name begins with `prefix` (the longest prefix wins). An image of no prefix cannot be pulled.

    `path` are folders first on PATH, `environment` is the image's ENV, `entrypoint` its ENTRYPOINT, `pull_s` how long a pull takes.
    """

    prefix: str
    path: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    pull_s: float = 0.0


@dataclass(frozen=True)
class ClusterSpec:
    """A whole cluster.

    `claims` are folders by PersistentVolumeClaim name, in every namespace. `backoff_s` is the first wait of the image and crash back-offs
    (10 s in a real kubelet). `history` is how many changes a watch can go back. With `private_loopback` each pod gets a loopback address
    of its own in place of 127.0.0.1, so that pods can listen on the same port.
    """

    nodes: tuple[NodeSpec, ...] = (NodeSpec("node-1"),)
    images: tuple[ImageSpec, ...] = ()
    claims: Mapping[str, str] = field(default_factory=dict)
    namespaces: tuple[str, ...] = ("default",)
    priority_classes: Mapping[str, int] = field(default_factory=dict)
    version: str = "1.36"
    backoff_s: float = 0.2
    history: int = 1000
    private_loopback: bool = False

    def write(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> Self:
        """What `write` wrote."""
        data: dict[str, Any] = json.loads(path.read_text())
        nodes = tuple(node_of(node) for node in data.pop("nodes"))
        images = tuple(
            ImageSpec(**{**image, "path": tuple(image["path"]), "entrypoint": tuple(image["entrypoint"])}) for image in data.pop("images")
        )
        return cls(nodes=nodes, images=images, namespaces=tuple(data.pop("namespaces")), **data)


def node_of(data: Mapping[str, Any]) -> NodeSpec:
    """A node from its JSON."""
    return NodeSpec(**{**data, "taints": tuple(data["taints"])})
