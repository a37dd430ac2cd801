"""Resource quantities and what a pod asks for: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from tests.kubernetes_api.objects import restartable

_QUANTITY = re.compile(r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?P<suffix>[KMGTPE]i|[numkMGTPE]?)")
_FACTORS: Final = {
    "": Decimal(1),
    **{suffix: Decimal(10) ** power for suffix, power in zip("numkMGTPE", (-9, -6, -3, 3, 6, 9, 12, 15, 18), strict=True)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", start=1)},
}
Resources = dict[str, Decimal]


def quantity(text: str | float) -> Decimal:
    """The number. Raises ValueError."""
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise ValueError(f"{text!r} is no quantity")
    return Decimal(match["number"]) * _FACTORS[match["suffix"]]


def add(left: Mapping[str, Decimal], right: Mapping[str, Decimal]) -> Resources:
    """Sum by resource."""
    return {name: left.get(name, Decimal(0)) + right.get(name, Decimal(0)) for name in {**left, **right}}


def pod_requests(pod: Mapping[str, Any]) -> Resources:
    """What the scheduler reserves: the containers with the sidecars, or an init container with the sidecars before it, the larger.

    The rule: https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers
    """
    sidecars: Resources = {}
    largest_init: Resources = {}
    for container in pod["spec"].get("initContainers", []):
        if restartable(container):
            sidecars = add(sidecars, _requests(container))
            largest_init = _larger(largest_init, sidecars)
        else:
            largest_init = _larger(largest_init, add(sidecars, _requests(container)))
    running = sidecars
    for container in pod["spec"]["containers"]:
        running = add(running, _requests(container))
    return _larger(running, largest_init)


def total(pods: Iterable[Mapping[str, Any]]) -> Resources:
    """What several pods reserve, with one `pods` for each."""
    result: Resources = {}
    for pod in pods:
        result = add(result, {**pod_requests(pod), "pods": Decimal(1)})
    return result


def _requests(container: Mapping[str, Any]) -> Resources:
    return {name: quantity(value) for name, value in container.get("resources", {}).get("requests", {}).items()}


def _larger(left: Mapping[str, Decimal], right: Mapping[str, Decimal]) -> Resources:
    return {name: max(left.get(name, Decimal(0)), right.get(name, Decimal(0))) for name in {**left, **right}}
