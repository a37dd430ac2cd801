"""What an engine says about itself on its Prometheus page: prefix-cache hits, preemptions, times of queueing, prefill and decode; gauges.

Counters are read before and after a load point; the difference is the load point's. Gauges are read now and then while it runs, and their
maxima are kept. Under which names the figures stand is the engine driver's to say (`EngineMetrics`); what it does not name stays None.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields

from prometheus_client.parser import text_string_to_metric_families

from assets.benchmark.load.endpoint import Endpoint
from assets.benchmark.load.probe import NoAnswerError, get

METRICS_TIMEOUT_S = 5.0
# An engine makes its page in the process that streams its tokens: asked more often, the question would show in what is measured.
GAUGE_INTERVAL_S = 5.0


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """For each figure the samples that may hold it; the first that is there is taken. `name{label="value"}`: those with the label only.

    Counters are summed over all labels, and so are the gauges, but for the share of the KV cache, which is their mean. Seconds are sums
    over requests, for an engine that counts none of its requests over batches.
    """

    prefix_cache_hit_tokens: tuple[str, ...] = ()
    prefix_cache_query_tokens: tuple[str, ...] = ()
    preemptions: tuple[str, ...] = ()
    queue_s: tuple[str, ...] = ()
    queued_requests: tuple[str, ...] = ()
    prefill_s: tuple[str, ...] = ()
    decode_s: tuple[str, ...] = ()
    prompt_tokens: tuple[str, ...] = ()
    generated_tokens: tuple[str, ...] = ()
    kv_cache_usage_share: tuple[str, ...] = ()
    running_requests: tuple[str, ...] = ()
    waiting_requests: tuple[str, ...] = ()

    def figures(self) -> tuple[str, ...]:
        """The figures that the engine gives."""
        return tuple(figure for figure, names in asdict(self).items() if names)


def merged(tables: Iterable[EngineMetrics]) -> EngineMetrics:
    """One table that reads the page of any of these engines."""
    together = list(tables)
    return EngineMetrics(
        **{
            column.name: tuple(dict.fromkeys(name for table in together for name in getattr(table, column.name)))
            for column in fields(EngineMetrics)
        }
    )


@dataclass(frozen=True, slots=True)
class ServerCounters:
    """Running totals; None where the engine has no such counter. Seconds are sums over requests."""

    prefix_cache_hit_tokens: float | None = None
    prefix_cache_query_tokens: float | None = None
    preemptions: float | None = None
    queue_s: float | None = None
    queued_requests: float | None = None
    prefill_s: float | None = None
    decode_s: float | None = None
    prompt_tokens: float | None = None
    generated_tokens: float | None = None

    def since(self, before: ServerCounters) -> ServerCounters:
        """The difference to an earlier reading. A counter that has gone down (the server was started anew) is None."""
        values: dict[str, float | None] = {}
        for figure in fields(self):
            now, then = getattr(self, figure.name), getattr(before, figure.name)
            values[figure.name] = now - then if now is not None and then is not None and now >= then else None
        return ServerCounters(**values)

    def known(self) -> dict[str, float]:
        """Those that the engine has."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class ServerGauges:
    """What holds at one instant; None where the engine has no such gauge. `kv_cache_usage_share` is between 0 and 1."""

    kv_cache_usage_share: float | None = None
    running_requests: float | None = None
    waiting_requests: float | None = None

    def known(self) -> dict[str, float]:
        """Those that the engine has."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(slots=True)
class GaugeWatch:
    """Reads a server's gauges at most every `interval_s` while a load point runs, and keeps the largest of each."""

    endpoint: Endpoint
    metrics: EngineMetrics
    paths: Sequence[str]
    interval_s: float = GAUGE_INTERVAL_S
    maxima: dict[str, float] = field(default_factory=dict)
    _next_s: float = field(default_factory=time.monotonic)

    def look(self) -> None:
        """Read, if it is time to. Without a metrics page this asks nothing."""
        if not self.paths or time.monotonic() < self._next_s:
            return
        for name, value in read_gauges(self.endpoint, self.metrics, self.paths).known().items():
            self.maxima[name] = max(value, self.maxima.get(name, value))
        self._next_s = time.monotonic() + self.interval_s


def parse_counters(text: str, metrics: EngineMetrics) -> ServerCounters:
    """From a Prometheus page. Raises ValueError where it is none."""
    totals = _sums(text, metrics)
    return ServerCounters(**{figure.name: _first(getattr(metrics, figure.name), totals) for figure in fields(ServerCounters)})


def parse_gauges(text: str, metrics: EngineMetrics) -> ServerGauges:
    """From a Prometheus page. Raises ValueError where it is none."""
    totals, counts = _sums(text, metrics), _sums(text, metrics, count=True)
    share = _first(metrics.kv_cache_usage_share, {name: total / counts[name] for name, total in totals.items()})
    return ServerGauges(share, _first(metrics.running_requests, totals), _first(metrics.waiting_requests, totals))


def read_counters(endpoint: Endpoint, metrics: EngineMetrics, paths: Sequence[str]) -> ServerCounters:
    """Of a running server, from the first of the pages that has any of the figures; empty where there is none."""
    for path in paths:
        try:
            counters = parse_counters(_page(endpoint, path), metrics)
        except (NoAnswerError, ValueError):
            continue
        if counters.known():
            return counters
    return ServerCounters()


def read_gauges(endpoint: Endpoint, metrics: EngineMetrics, paths: Sequence[str]) -> ServerGauges:
    """Of a running server, from the first of the pages that has any of the gauges; empty where there is none."""
    for path in paths:
        try:
            gauges = parse_gauges(_page(endpoint, path), metrics)
        except (NoAnswerError, ValueError):
            continue
        if gauges.known():
            return gauges
    return ServerGauges()


def _page(endpoint: Endpoint, path: str) -> str:
    return get(endpoint, path, METRICS_TIMEOUT_S).decode("utf-8", "replace")


def _sums(text: str, metrics: EngineMetrics, count: bool = False) -> dict[str, float]:
    """The sum (or the number) of the samples of every name that the table has."""
    wanted = {name for figure in fields(metrics) for name in getattr(metrics, figure.name)}
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            chosen = (f'{sample.name}{{{label}="{value}"}}' for label, value in sample.labels.items())
            for name in wanted.intersection((sample.name, *chosen)):
                sums[name] = sums.get(name, 0.0) + (1.0 if count else sample.value)
    return sums


def _first(names: Sequence[str], totals: dict[str, float]) -> float | None:
    return next((totals[name] for name in names if name in totals), None)
