"""When a load point has enough requests: as soon as what decides a ranking is known as well as was asked.

After `min_requests`, and again each time that a tenth more have completed, the 95 % intervals of the deciding metrics are made; the load
point ends when each is within +-`precision` of its estimate, or when all its requests are made. Looking several times makes the final
intervals a little too narrow (optional stopping); steps of a tenth keep that small, and the number of requests is in every result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from assets.benchmark.load.decode import RequestRecord
from assets.benchmark.load.intervals import block_length, interval, resample

GROWTH = 1.1
RESAMPLES = 200
DECIDING = ("ttft_ms", "tpot_ms", "e2e_ms")
_PERCENTILE = 90


@dataclass(slots=True)
class StoppingRule:
    """Callable on the records so far, in any order; True once they are enough. `precision` is a relative half-width."""

    min_requests: int
    precision: float
    concurrency: int
    _next_look: float = 0.0

    def __call__(self, records: Sequence[RequestRecord]) -> bool:
        """Whether the deciding metrics are known well enough."""
        if len(records) < max(self.min_requests, self._next_look):
            return False
        self._next_look = len(records) * GROWTH
        completed = sorted((record for record in records if record.failure is None), key=lambda record: record.start_ns)
        return len(completed) >= self.min_requests and all(self._is_known(completed, metric) for metric in DECIDING)

    def _is_known(self, completed: Sequence[RequestRecord], metric: str) -> bool:
        values = np.asarray([value for record in completed if (value := getattr(record, metric)) is not None], dtype=np.float64)
        if values.size < 2:
            return True  # requests of one token have no TPOT
        rows = resample(values.size, block_length(values.size, self.concurrency), seed=0, resamples=RESAMPLES)
        low, high = interval(np.percentile(values[rows], _PERCENTILE, axis=1))
        return (high - low) / 2 <= self.precision * max(float(np.percentile(values, _PERCENTILE)), 1e-9)
