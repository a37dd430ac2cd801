"""When requests go out: instants for an open loop, streams for a closed one.

An open loop's rate may change: it is a line through (second, requests per second) points. Its arrivals are those of a process of rate 1
- evenly spaced, Poisson, or Gamma - whose time is stretched by the rate (inversion: Cinlar 1975, Introduction to Stochastic Processes).
Gaps are scaled so that the number of arrivals is the rate's integral exactly: what is asked is what is sent, and two seeds differ in the
pattern of a load, not in its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

ArrivalProcess = Literal["constant", "poisson", "gamma"]

Floats = npt.NDArray[np.float64]


class ArrivalError(ValueError):
    """No such arrivals are possible; the message says why."""


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """`concurrency` streams, each of which sends its next request when its last has ended. They start over `ramp_s`, evenly."""

    concurrency: int
    ramp_s: float = 0.0

    def streams_start_s(self) -> list[float]:
        """The instant at which each stream starts, in seconds, ascending."""
        return [self.ramp_s * stream / self.concurrency for stream in range(self.concurrency)]


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Requests at their instants (seconds from the start, ascending), whether or not others have ended."""

    due_s: tuple[float, ...]


Arrivals = ClosedLoop | OpenLoop


@dataclass(frozen=True, slots=True)
class RateProfile:
    """Requests per second over time: straight lines between `points` of (second, rate), the first at second 0."""

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        """Raises ArrivalError for what is no profile."""
        seconds, rates = zip(*self.points, strict=True) if self.points else ((), ())
        ordered = len(seconds) > 1 and seconds[0] == 0 and all(a <= b for a, b in pairwise(seconds))
        if not ordered or min(rates) < 0 or max(rates) <= 0 or not np.isfinite([*seconds, *rates]).all():
            raise ArrivalError("a load over time needs seconds that ascend from 0, and rates that are not negative nor all 0")

    @classmethod
    def steady(cls, rate_per_s: float, duration_s: float) -> RateProfile:
        """One rate all along."""
        return cls(((0.0, rate_per_s), (duration_s, rate_per_s)))

    @classmethod
    def staged(cls, stages: Sequence[tuple[float, float]]) -> RateProfile:
        """Steps of (rate, seconds), one after the other."""
        points: list[tuple[float, float]] = []
        at = 0.0
        for rate, seconds in stages:
            points += [(at, rate), (at + seconds, rate)]
            at += seconds
        return cls(tuple(points))

    @property
    def requests(self) -> int:
        """How many requests it makes: its integral, rounded."""
        seconds, rates = np.asarray(self.points, dtype=np.float64).T
        return round(float(np.trapezoid(rates, seconds)))


def open_loop(profile: RateProfile, process: ArrivalProcess, seed: int, burstiness: float = 1.0) -> OpenLoop:
    """Arrivals of a profile. `burstiness` is the shape of Gamma gaps: 1 is Poisson, less is burstier, more is more even.

    Raises:
        ArrivalError: the profile makes no request, or the burstiness is not positive.
    """
    count = profile.requests
    if count < 1:
        raise ArrivalError("the load makes less than one request: raise the rate or the duration")
    if burstiness <= 0:
        raise ArrivalError("burstiness must be positive: 1 is Poisson, less is burstier")
    random = np.random.default_rng(seed)
    match process:
        case "constant":
            gaps = np.ones(count)
        case "poisson":
            gaps = random.exponential(1.0, count)
        case "gamma":
            gaps = random.gamma(burstiness, 1.0 / burstiness, count)
    # the first request comes at 0, and the last one as long before the end as the gap that would follow it
    unit_times = np.concatenate(([0.0], np.cumsum(gaps)[:-1])) * (count / max(float(gaps.sum()), 1e-300))
    return OpenLoop(tuple(_stretch(profile, unit_times * (_integral(profile)[-1] / count)).tolist()))


def _integral(profile: RateProfile) -> Floats:
    """Requests made up to each point."""
    seconds, rates = np.asarray(profile.points, dtype=np.float64).T
    steps = np.diff(seconds) * (rates[:-1] + rates[1:]) / 2
    return np.concatenate(([0.0], np.cumsum(steps)))


def _stretch(profile: RateProfile, requests: Floats) -> Floats:
    """The instants at which the profile has made that many requests: its integral, inverted piece by piece."""
    seconds, rates = np.asarray(profile.points, dtype=np.float64).T
    made = _integral(profile)
    piece = np.clip(np.searchsorted(made, requests, side="right") - 1, 0, len(seconds) - 2)
    left = requests - made[piece]
    length = seconds[piece + 1] - seconds[piece]
    slope = np.divide(rates[piece + 1] - rates[piece], length, out=np.zeros_like(length), where=length > 0)
    # left = rate t + slope t^2 / 2, solved for t in the form that holds for a slope of 0
    root = np.sqrt(np.maximum(rates[piece] ** 2 + 2 * slope * left, 0.0))
    denominator = rates[piece] + root
    return np.asarray(seconds[piece] + np.divide(2 * left, denominator, out=np.zeros_like(left), where=denominator > 0))
