"""The errors of the matrix stage. Their messages are meant for people: what is wrong, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MatrixError(Exception):
    """Base of what can go wrong while a matrix is made."""


class DimensionDataError(MatrixError):
    """A data file of the matrix has an unknown key, a missing one, or a value that cannot be."""


class UnknownDimensionError(MatrixError):
    """A hardware config, engine, quantization, workload or preset that is not there."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names)}"
        super().__init__(f"unknown {kind} {name!r}: {hint}")


class MatrixModelError(MatrixError):
    """A model of which no matrix can be made."""


class PartitionKeyCollisionError(MatrixError):
    """Two batches would have the same partition key."""
