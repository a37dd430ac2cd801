"""Which of the measured workloads a request is answered from.

Candidates are compared only under one workload with one length of prompt and answer: a shorter answer is done sooner and cheaper,
which says nothing about the deployment.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from assets.rankings.request import Load
from assets.rankings.rows import LoadPointRow

# Beyond this factor between the lengths asked for and those measured, the answer says so in words.
LENGTH_FACTOR = 2.0


@dataclass(frozen=True, slots=True)
class MeasuredWorkload:
    """A pattern of requests as it was measured; the token counts are means of one request."""

    workload: str
    input_tokens: int
    output_tokens: int

    @classmethod
    def of(cls, row: LoadPointRow) -> MeasuredWorkload:
        """The workload of a load point."""
        return cls(row.workload, row.input_tokens, row.output_tokens)

    def distance(self, input_tokens: int, output_tokens: int) -> float:
        """How far these lengths are from others: |ln(input / input)| + |ln(output / output)|, so that double and half are as far."""
        return _log_ratio(self.input_tokens, input_tokens) + _log_ratio(self.output_tokens, output_tokens)


def _log_ratio(measured: int, wanted: int) -> float:
    # a length of 0 counts as 1
    return abs(math.log(max(measured, 1) / max(wanted, 1)))


def closest(measured: Iterable[MeasuredWorkload], input_tokens: int, output_tokens: int) -> MeasuredWorkload | None:
    """The workload whose lengths are closest to those given; ties go by name, then to the shorter one. None when there is none."""

    def order(workload: MeasuredWorkload) -> tuple[float, str, int, int]:
        distance = workload.distance(input_tokens, output_tokens)
        return distance, workload.workload, workload.input_tokens, workload.output_tokens

    return min(measured, key=order, default=None)


def length_warning(compared: MeasuredWorkload, asked: Load, typical_input_tokens: int, typical_output_tokens: int) -> str | None:
    """What to know when the compared lengths are more than a factor of 2 off those wanted; None when they are not.

    Wanted is what was asked for, or the use case's typical length where nothing was.
    """
    lengths = (
        ("prompts", asked.input_tokens, typical_input_tokens, compared.input_tokens),
        ("answers", asked.output_tokens, typical_output_tokens, compared.output_tokens),
    )
    off = [
        f"{what} of {measured} tokens were measured, "
        + (f"{typical} are typical of the use case" if wanted is None else f"{wanted} were asked for")
        for what, wanted, typical, measured in lengths
        if _log_ratio(measured, wanted or typical) > math.log(LENGTH_FACTOR)
    ]
    if not off:
        return None
    return (
        f"The closest lengths that were measured are more than a factor of {LENGTH_FACTOR:g} off: {'; '.join(off)}. "
        "Latency, throughput and cost would differ."
    )
