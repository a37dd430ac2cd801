"""What the options of `./dyno bench` ask for."""

from __future__ import annotations

from json import loads
from pathlib import Path
from typing import Any

from assets.benchmark.bench_load import BenchError, Load, closed_loop_requests
from assets.benchmark.load.arrivals import RateProfile
from assets.benchmark.load.traces import TracedRequest

DEFAULT_REQUESTS = 100
DEFAULT_TIMEOUT_S = 300.0
DEFAULT_DURATION_S = 60.0


def extra_body_of(text: str | None) -> dict[str, Any]:
    """Raises BenchError where it is no JSON object."""
    try:
        document = {} if text is None else loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise BenchError(f"--extra-body {text}: give a JSON object, e.g. '{{\"cache_prompt\": false}}'")
    return document


def check_combination(
    *,
    find_max_load: bool,
    repeats: int,
    turns: int,
    think_time_s: float,
    arrival: str,
    burstiness: float,
    throughput: bool,
    rate: float | None,
    rate_to: float | None,
    stages: str | None,
    trace: Path | None,
    requests: int | None,
    duration: float | None,
    precision: float | None,
) -> None:
    """Raises BenchError for options of which one would be ignored."""
    for wrong, sentence in (
        (find_max_load and repeats > 1, "--find-max and --repeats: a search repeats nothing; measure at the load that it finds"),
        (find_max_load and bool(throughput or rate_to or stages or trace), "--find-max searches a concurrency or a --rate, no other load"),
        (
            precision is not None and bool(throughput or rate or stages or trace),
            "--precision ends a closed loop: an open one has its length; leave it out, or give --concurrency",
        ),
        (think_time_s > 0 and turns == 1, "--think-time-s is a pause between turns: give --turns too"),
        (burstiness != 1 and arrival != "gamma", "--burstiness is of --arrival gamma: give that too"),
        (stages is not None and (requests or duration) is not None, "--stages say how long they are: leave --requests and --duration out"),
        (rate_to is not None and requests is not None, "--rate-to has a --duration, from which the requests follow: leave --requests out"),
    ):
        if wrong:
            raise BenchError(sentence)


def load_of(
    *,
    concurrency: int | None,
    ramp_s: float,
    throughput: bool,
    rate: float | None,
    rate_to: float | None,
    stages: str | None,
    arrival: str,
    burstiness: float,
    traced: tuple[TracedRequest, ...],
    requests: int | None,
    duration: float | None,
    precision: float | None,
) -> Load:
    """The load that the options ask for. Raises BenchError where they contradict one another."""
    modes = {
        "--concurrency": concurrency is not None,
        "--throughput": throughput,
        "--rate": rate is not None,
        "--stages": stages is not None,
        "--trace": bool(traced),
    }
    given = [name for name, is_given in modes.items() if is_given]
    if len(given) > 1:
        raise BenchError(f"give one of {', '.join(given)}: each is a load of its own")
    if rate_to is not None and rate is None:
        raise BenchError("--rate-to needs --rate: the rate to ramp from")
    if arrival not in {"constant", "poisson", "gamma"}:
        raise BenchError(f"--arrival {arrival} is unknown; one of constant, poisson, gamma")
    if traced:
        return Load(len(traced), duration_s=duration)
    if rate is not None or stages is not None:
        profile = _profile(rate, rate_to, stages, requests, duration)
        return Load(max(1, profile.requests), profile=profile, arrival=arrival, burstiness=burstiness)  # type: ignore[arg-type]  # checked above
    streams = concurrency or 1
    if throughput:
        count = requests or DEFAULT_REQUESTS
        return Load(count, concurrency=count, duration_s=duration, unbounded=True)
    if duration is not None and requests is None:
        least = None if precision is None else DEFAULT_REQUESTS
        return Load(None, concurrency=streams, ramp_s=ramp_s, duration_s=duration, least=least, precision=precision or 0.05)
    count = closed_loop_requests(streams, requests, DEFAULT_REQUESTS if precision is None else 5 * DEFAULT_REQUESTS)
    least = None if precision is None else min(DEFAULT_REQUESTS, count)
    return Load(count, concurrency=streams, ramp_s=ramp_s, duration_s=duration, least=least, precision=precision or 0.05)


def _profile(rate: float | None, rate_to: float | None, stages: str | None, requests: int | None, duration: float | None) -> RateProfile:
    if stages is not None:
        try:
            return RateProfile.staged([(float(step.split(":")[0]), float(step.split(":")[1])) for step in stages.split(",")])
        except (ValueError, IndexError) as error:
            raise BenchError(f"--stages {stages}: give RATE:SECONDS, comma-separated, e.g. 5:30,10:30,20:30") from error
    if rate is None:
        raise BenchError("an open loop needs --rate or --stages")
    if rate_to is not None:
        return RateProfile(((0.0, rate), (duration or DEFAULT_DURATION_S, rate_to)))
    if requests is not None and duration is not None:
        raise BenchError("an open loop at --rate has --requests or --duration: each follows from the other")
    return RateProfile.steady(rate, requests / rate if requests is not None else duration or DEFAULT_DURATION_S)
