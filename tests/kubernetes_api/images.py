"""Which image is which set of programs of this machine, and the ways a pull fails.

Reasons and sentences: pkg/kubelet/images/image_manager.go. A pod whose image cannot be pulled stays Pending for ever
(https://github.com/kubernetes/kubernetes/issues/66828); its container changes between ErrImagePull and ImagePullBackOff.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tests.kubernetes_api.spec import ImageSpec

ERR_IMAGE_PULL: Final = "ErrImagePull"
IMAGE_PULL_BACK_OFF: Final = "ImagePullBackOff"


@dataclass
class PullFault:
    """Images with this prefix cannot be pulled: `attempts` more times, or for ever (None)."""

    prefix: str
    attempts: int | None
    message: str


class Images:
    """The registry, as the nodes see it."""

    def __init__(self, specs: Sequence[ImageSpec]) -> None:
        self._specs = sorted(specs, key=lambda spec: len(spec.prefix), reverse=True)
        self._faults: list[PullFault] = []
        self._present: set[tuple[str, str]] = set()

    def fail(self, fault: PullFault) -> None:
        """Pulls fail from now on; `attempts` 0 ends a fault."""
        self._faults = [each for each in self._faults if each.prefix != fault.prefix]
        if fault.attempts != 0:
            self._faults.append(fault)

    def present(self, node: str, image: str) -> bool:
        """Whether the node has pulled it before."""
        return (node, image) in self._present

    def find(self, image: str) -> ImageSpec | None:
        """The longest prefix that fits."""
        return next((spec for spec in self._specs if image.startswith(spec.prefix)), None)

    def pull(self, node: str, image: str) -> str | None:
        """None when the node now has the image, else the error; counts the attempt."""
        for fault in self._faults:
            if image.startswith(fault.prefix) and fault.attempts != 0:
                if fault.attempts is not None:
                    fault.attempts -= 1
                return fault.message
        if self.find(image) is None:
            # containerd's words: https://github.com/kubernetes/kubernetes/pull/138860
            return f'failed to resolve reference "{image}": {image}: not found'
        self._present.add((node, image))
        return None
