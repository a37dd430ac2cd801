"""How long prompts and answers are: one length, or a distribution of lengths in tokens."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

Kind = Literal["fixed", "uniform", "normal", "lognormal", "empirical"]
HELP = (
    "a number, uniform:MIN,MAX, normal:MEAN,SD, lognormal:MEAN,SD, or file:PATH (a length a line, or a column of a CSV: file:PATH:COLUMN)"
)
MIN_TOKENS = 1


class LengthError(ValueError):
    """A length cannot be read; the message says how it is written."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution of lengths. `values` are its parameters: (n), (min, max), (mean, standard deviation), or the lengths themselves."""

    kind: Kind
    values: tuple[float, ...]
    text: str

    @classmethod
    def parse(cls, text: str) -> Lengths:
        """From HELP's notation. Raises LengthError."""
        kind, _, rest = text.partition(":")
        if kind == "file":
            return cls("empirical", _read(rest), text)
        try:
            if not rest:
                values: tuple[float, ...] = (float(int(kind)),)
                kind = "fixed"
            else:
                values = tuple(float(value) for value in rest.split(","))
        except ValueError:
            raise LengthError(f"{text!r} is no length: give {HELP}") from None
        right = {
            "fixed": len(values) == 1 and values[0] >= MIN_TOKENS,
            "uniform": len(values) == 2 and MIN_TOKENS <= values[0] <= values[1],
            "normal": len(values) == 2 and values[0] >= MIN_TOKENS and values[1] >= 0,
            "lognormal": len(values) == 2 and values[0] >= MIN_TOKENS and values[1] >= 0,
        }
        if not np.isfinite(values).all() or not right.get(kind, False):
            raise LengthError(f"{text!r} is no length: give {HELP}")
        return cls(kind, values, text)  # type: ignore[arg-type]  # one of the keys

    @property
    def fixed(self) -> int | None:
        """The one length; None for a distribution."""
        return int(self.values[0]) if self.kind == "fixed" else None

    def sample(self, count: int, seed: int) -> list[int]:
        """`count` lengths, at least one token each. An empirical distribution is drawn with replacement."""
        random = np.random.default_rng(seed)
        match self.kind:
            case "fixed":
                drawn = np.full(count, self.values[0])
            case "uniform":
                drawn = random.integers(int(self.values[0]), int(self.values[1]) + 1, count).astype(np.float64)
            case "normal":
                drawn = random.normal(self.values[0], self.values[1], count)
            case "lognormal":
                mean, deviation = self.values
                # the parameters of the logarithm that give this mean and this standard deviation
                variance = np.log1p((deviation / mean) ** 2)
                drawn = random.lognormal(np.log(mean) - variance / 2, np.sqrt(variance), count)
            case "empirical":
                drawn = random.choice(np.asarray(self.values), count)
        return [int(length) for length in np.maximum(np.rint(drawn), MIN_TOKENS)]


def _read(where: str) -> tuple[float, ...]:
    name, _, column = where.partition(":")
    path = Path(name)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LengthError(f"cannot read the lengths {path}: {getattr(error, 'strerror', None) or 'it is not text'}") from error
    try:
        if column:
            values = [float(row[column]) for row in csv.DictReader(lines)]
        else:
            values = [float(json.loads(line)) for line in lines if line.strip()]
    except (KeyError, ValueError, TypeError) as error:
        raise LengthError(f"{path} has no lengths{f' in a column {column!r}' if column else ', one a line'}: {error}") from error
    if not values or min(values) < MIN_TOKENS or not np.isfinite(values).all():
        raise LengthError(f"{path} has no lengths, or some under {MIN_TOKENS} token")
    return tuple(values)
