"""Numbers and texts of a bench report: what may be missing in a document, and how it is shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from assets.reporting.bench_requests import Row

Floats = npt.NDArray[np.float64]


MAX_TEXT_CHARACTERS = 200


UNKNOWN = "–"


LATENCIES = {"ttft_ms": "TTFT", "tpot_ms": "TPOT", "itl_ms": "ITL", "e2e_ms": "e2e"}


def timed_rows(rows: Sequence[Row]) -> list[Row]:
    """Those rows of which we know when they were in flight."""
    return [row for row in rows if math.isfinite(to_float(row.get("start_ms"))) and math.isfinite(to_float(row.get("end_ms")))]


def span_seconds(timed: Sequence[Row]) -> tuple[float, float]:
    """The seconds that the plots over time show."""
    begin_s, end_s = min(0.0, float(column_of(timed, "start_ms").min()) / 1e3), float(column_of(timed, "end_ms").max()) / 1e3
    return begin_s, max(end_s, begin_s + 1e-3)


def column_of(rows: Sequence[Row], name: str) -> Floats:
    """A column of the rows, not a number where it is not known."""
    return np.asarray([to_float(row.get(name)) for row in rows], dtype=np.float64)


def known_values(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def gaps_of(row: Row) -> Floats:
    gaps_ms = row.get("token_gaps_ms")
    return np.asarray(() if gaps_ms is None else gaps_ms, dtype=np.float64)


def plain_list(values: npt.NDArray[np.floating[Any]], decimals: int = 3) -> list[float]:
    """Numbers as the page writes them: to a microsecond, or to 10 of them where the unit is a second; no plot shows more."""
    return [float(value) for value in values.round(decimals)]


def to_mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def to_float(value: object) -> float:
    return float(value) if isinstance(value, int | float | np.integer) and not isinstance(value, bool) else math.nan


def or_zero(value: object) -> float:
    number = to_float(value)
    return number if math.isfinite(number) else 0.0


def as_interval(bounds: Sequence[float] | None) -> str:
    return f"{as_number(bounds[0])} to {as_number(bounds[1])}" if bounds and None not in bounds else ""


def as_pair(values: Mapping[str, Any], first: str, second: str) -> str:
    pair = as_number(values.get(first)), as_number(values.get(second))
    return UNKNOWN if pair == (UNKNOWN, UNKNOWN) else " / ".join(pair)


def as_number(value: object) -> str:
    """A measured number, to about four digits."""
    number = to_float(value)
    if not math.isfinite(number):
        return UNKNOWN
    decimals = 0 if abs(number) >= 10_000 else 1 if abs(number) >= 100 else 2 if abs(number) >= 1 else 3
    return f"{number:,.{decimals}f}"


def as_count(value: object) -> str:
    number = to_float(value)
    return f"{number:,.0f}" if math.isfinite(number) else UNKNOWN


def as_level(value: object) -> str:
    """A load: a whole number of streams, or a rate."""
    number = to_float(value)
    return f"{number:.4g}" if math.isfinite(number) else UNKNOWN


def as_text(value: object) -> str:
    """Text from outside, which can become neither markup of the page nor of a plot."""
    if value is None:
        return UNKNOWN
    text = str(value)
    return escape(text if len(text) <= MAX_TEXT_CHARACTERS else text[: MAX_TEXT_CHARACTERS - 1] + "…")
