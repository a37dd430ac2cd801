"""The highest load that meets its objectives, found with few probes.

The load is doubled until the objectives are missed (where the first already misses them: halved until they are met), and the step between
the last that met them and the first that did not is then halved (by ratio) until it is narrow enough. Latency grows with load, so one such
step exists; noise can move it by about a probe's interval, which is why every probe is in the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

# How far below its start a search goes on: a load of a thousandth is another question.
LOWEST_SHARE = 1 / 1024
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

    low, high = _climb(meets, start, limit)
    if low is None and high is not None:
        low, high = _descend(meets, high, 1.0 if whole else start * LOWEST_SHARE, whole=whole)
    if low is not None and high is not None:
        low = _narrow(meets, low, high, whole=whole)
    best = next((probe for probe in probes if probe.load == low), None)
    return Found(tuple(probes), best, high is not None)


def _climb(meets: Callable[[float], bool], load: float, limit: float) -> tuple[float | None, float | None]:
    """The highest that met the objectives and the lowest that did not, doubling from `load`; None where there is none."""
    low: float | None = None
    while meets(load):
        low = load
        if load >= limit:
            return low, None
        load = min(load * 2, limit)
    return low, load


def _descend(meets: Callable[[float], bool], high: float, lowest: float, *, whole: bool) -> tuple[float | None, float]:
    """The same, halving from a load that missed them."""
    while high > lowest:
        load = max(float(high // 2) if whole else high / 2, lowest)
        if meets(load):
            return load, high
        high = load
    return None, high


def _narrow(meets: Callable[[float], bool], low: float, high: float, *, whole: bool) -> float:
    """The highest between the two that meets the objectives, as far as the resolution tells."""
    while high / low > RESOLUTION:
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
    return low
