"""What a bench run asks of a server, and how: its prompts, its streams or arrivals, and where it ends."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from assets.benchmark.job import STEADY_REQUESTS_PER_STREAM
from assets.benchmark.load.arrivals import ArrivalProcess, RateProfile
from assets.benchmark.load.lengths import Lengths
from assets.benchmark.load.traces import TracedRequest

MIN_REQUESTS_A_RATE = 100
# A closed loop that ends by time gets at most so many: their bodies are made beforehand.
MAX_REQUESTS = 100_000
# Answers under load are no faster than in the warm-up, but for noise.
SPEED_UP = 1.5


class BenchError(Exception):
    """The server cannot be measured so; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked. `trace` and `dataset` bring their own lengths. `turns` over 1 make conversations, with `think_s` between the turns."""

    input_tokens: Lengths
    output_tokens: Lengths
    shared_prefix_share: float = 0.0
    turns: int = 1
    think_s: float = 0.0
    dataset: Path | None = None
    trace: tuple[TracedRequest, ...] = ()


@dataclass(frozen=True, slots=True)
class Load:
    """How it is asked: `concurrency` streams, or arrivals along `profile`, or - with neither - at the trace's instants.

    `requests` is how many at most (None: as many as `duration_s` takes); from `least` on the load point ends once its percentiles are known
    to `precision`. `duration_s` ends it too. `unbounded`: as many streams as there are requests, so that no concurrency was asked for.
    """

    requests: int | None
    concurrency: int | None = None
    ramp_s: float = 0.0
    profile: RateProfile | None = None
    arrival: ArrivalProcess = "poisson"
    burstiness: float = 1.0
    duration_s: float | None = None
    least: int | None = None
    precision: float = 0.05
    unbounded: bool = False

    @property
    def rate_per_s(self) -> float | None:
        """The mean rate of an open loop."""
        return None if self.profile is None else self.profile.requests / self.profile.points[-1][0]


def closed_loop_requests(concurrency: int, asked: int | None, otherwise: int) -> int:
    """How many requests a closed loop gets: what is asked, or enough for its streams."""
    return asked if asked is not None else max(otherwise, STEADY_REQUESTS_PER_STREAM * concurrency)


def streams_of(load: Load) -> int:
    """No more than there are requests."""
    return min(load.concurrency or 1, load.requests or MAX_REQUESTS)


def enough_for(load: Load, fastest_s: float) -> int:
    """More requests than the load point's duration can take, judged by the fastest answer of the warm-up."""
    of_one_stream = math.ceil(SPEED_UP * (load.duration_s or 0.0) / fastest_s) + 1 if fastest_s > 0 else MAX_REQUESTS
    return min(MAX_REQUESTS, max(1, of_one_stream * (load.concurrency or 1)))


def at_rate(load: Load, rate_per_s: float) -> Load:
    """The same load at another rate: for as long, and for MIN_REQUESTS_A_RATE requests at least, so that it is sustained, not a burst."""
    seconds = 0.0 if load.profile is None else load.profile.points[-1][0]
    return replace(load, profile=RateProfile.steady(rate_per_s, max(seconds, MIN_REQUESTS_A_RATE / rate_per_s)))


def at_concurrency(load: Load, concurrency: int) -> Load:
    """The same load at another concurrency, with enough requests for it."""
    if load.requests is None:
        return replace(load, concurrency=concurrency)
    return replace(load, concurrency=concurrency, requests=max(load.requests, STEADY_REQUESTS_PER_STREAM * concurrency))
