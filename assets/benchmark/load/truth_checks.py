"""What must hold for a load point's numbers to be the engine's, checked against what the engine and the machine say themselves."""

from __future__ import annotations

from collections.abc import Sequence

from assets.benchmark.load.decode import RequestRecord
from assets.benchmark.load.server_counters import ServerCounters
from assets.benchmark.load.statistics import QUALITY_FLAGS, TOLERANCE, LoadStatistics


def cached_share(records: Sequence[RequestRecord], counters: ServerCounters) -> float | None:
    """The share of the prompts' tokens that came from the engine's prefix cache, by its usage or else by its counters; None: unknown."""
    told = [record for record in records if record.cached_tokens is not None and record.input_tokens]
    if told:
        return sum(record.cached_tokens or 0 for record in told) / sum(record.input_tokens or 0 for record in told)
    if counters.prefix_cache_hit_tokens is not None and counters.prefix_cache_query_tokens:
        return counters.prefix_cache_hit_tokens / counters.prefix_cache_query_tokens
    return None


def flags_of(
    statistics: LoadStatistics,
    records: Sequence[RequestRecord],
    counters: ServerCounters,
    *,
    limited: bool,
    shared_prefix_share: float = 0.0,
) -> tuple[str, ...]:
    """All of QUALITY_FLAGS that hold: those of the statistics, and what engine and client say."""
    share = cached_share(records, counters)
    holds = {
        **dict.fromkeys(statistics.quality_flags, True),
        "prefix_cache_hits": share is not None and share > shared_prefix_share + TOLERANCE,
        "preemptions": bool(counters.preemptions),
        "client_limited": limited,
    }
    return tuple(name for name in QUALITY_FLAGS if holds.get(name, False))
