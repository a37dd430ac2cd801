"""The highest load that meets its objectives, found with few probes.

The load is doubled until the objectives are missed, and the step between the last that met them and the first that did not is then halved
(by ratio) until it is narrow enough. Latency grows with load, so one such step exists; noise can move it by about a probe's interval, which
is why every probe is in the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

# Good enough to size a deployment; a narrower one asks for more requests a probe, not for more probes.
RESOLUTION = 1.1


@dataclass(frozen=True, slots=True)
class Probe(Generic[T]):
    """One load tried. `missed` says which objectives it did not meet."""

    load: float
    missed: tuple[str, ...]
    result: T


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """All probes in their order, and the best that met the objectives; None when even the lowest load missed them.

    `bounded`: a higher load missed them. Otherwise the search ended at its limit, and the true maximum may be higher.
    """

    probes: tuple[Probe[T], ...]
    best: Probe[T] | None
    bounded: bool


def find_max(measure: Callable[[float], tuple[tuple[str, ...], T]], start: float, limit: float, *, whole: bool) -> Found[T]:
    """Probe loads from `start` to `limit`; `measure` gives what a load missed and its result. `whole`: loads are whole numbers.

    Raises:
        ValueError: `start` is not positive, or over `limit`.
    """
    if not 0 < start <= limit:
        raise ValueError("the search needs a positive start that is not over its limit")
    probes: list[Probe[T]] = []

    def meets(load: float) -> bool:
        missed, result = measure(load)
        probes.append(Probe(load, missed, result))
        return not missed

    low, high = None, None
    load = start
    while True:
        if not meets(load):
            high = load
            break
        low = load
        if load >= limit:
            break
        load = min(load * 2, limit)
    while low is not None and high is not None and high / low > RESOLUTION:
        middle = math.sqrt(low * high)
        if whole:
            middle = round(middle)
            if middle in {low, high}:
                if high - low <= 1:
                    break
                middle = low + 1
        if meets(middle):
            low = middle
        else:
            high = middle
    best = next((probe for probe in probes if probe.load == low), None)
    return Found(tuple(probes), best, high is not None)
