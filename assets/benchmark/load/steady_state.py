"""Which part of a load point counts: after it has settled, and before it runs dry.

The warm-up is found by MSER-5 (K. P. White, "An effective truncation heuristic for bias reduction in simulation output", Simulation 69(6),
1997; batches of 5): of all places to cut the latencies in the order of their starts, it takes the one after which their mean is known best.
A best cut in the second half means that the load point never settled. The window then ends with the last send: from there on streams run
empty, and throughput would be that of an ever smaller load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from assets.benchmark.load.decode import RequestRecord

Floats = npt.NDArray[np.float64]

BATCH = 5
# With fewer, a cut costs more than the warm-up does.
MIN_REQUESTS = 100
# A window of less than this many mean latencies is mostly its own edges. A closed loop of seven requests a stream has one: its first wave
# is cut off, and in its last streams run dry.
MIN_LATENCIES = 5.0


@dataclass(frozen=True, slots=True)
class Window:
    """What counts: requests sent from `start_ns` on, and tokens from `start_ns` to `end_ns` (CLOCK_MONOTONIC).

    `kind` is `steady` for a window that was found, `whole` where the load point is too short to have one, `unsettled` where none was found;
    the last two hold everything, from the first send to the last end.
    """

    kind: str
    start_ns: int
    end_ns: int

    @property
    def duration_s(self) -> float:
        """Its length; never 0."""
        return max((self.end_ns - self.start_ns) / 1e9, 1e-9)


def mser_cut(values: Floats) -> int | None:
    """How many of the first values are warm-up; None when they never settle."""
    batches = len(values) // BATCH
    if batches < 2:
        return 0
    means = values[: batches * BATCH].reshape(batches, BATCH).mean(axis=1)
    last = batches // 2
    # variance of what remains over its number: the squared standard error of its mean
    errors = [float(means[cut:].var()) / (batches - cut) for cut in range(last + 1)]
    best = int(np.argmin(errors))
    return None if best == last and best > 0 else best * BATCH


def find_window(records: Sequence[RequestRecord], scheduled_s: float = 0.0) -> Window:
    """The window of a load point, from its records of all outcomes in the order of their starts.

    `scheduled_s` is how long an open loop's schedule lasts: the pause after its last arrival is part of its rate.
    """
    first_ns, last_ns = min(record.start_ns for record in records), max(record.end_ns for record in records)
    last_ns = max(last_ns, min(record.due_ns for record in records) + int(scheduled_s * 1e9))
    completed = [record for record in records if record.failure is None and record.e2e_ms is not None]
    if len(completed) < MIN_REQUESTS:
        return Window("whole", first_ns, last_ns)
    latencies = np.asarray([record.e2e_ms for record in completed], dtype=np.float64)
    cut = mser_cut(latencies)
    if cut is None:
        return Window("unsettled", first_ns, last_ns)
    start_ns, end_ns = completed[cut].start_ns, max(record.start_ns for record in records)
    if (end_ns - start_ns) / 1e6 < MIN_LATENCIES * float(latencies[cut:].mean()):
        return Window("whole", first_ns, last_ns)
    return Window("steady", start_ns, end_ns)
