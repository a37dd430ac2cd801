"""The Pareto front: candidates that no other candidate beats in one criterion without losing in another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def pareto_front(values: npt.ArrayLike, maximize: Sequence[bool]) -> npt.NDArray[np.bool_]:
    """Which rows are not dominated. Equal rows do not dominate each other.

    A criterion that is unknown (NaN) for any candidate is left out for all; with no criterion left, nothing is dominated.
    Raises ValueError when the shapes do not fit. Takes O(n x size of the front).
    """
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or len(maximize) != matrix.shape[1]:
        raise ValueError(f"expected one direction for each column, got {matrix.shape} and {len(maximize)}")
    known = ~np.isnan(matrix).any(axis=0)
    costs = np.where(np.asarray(maximize, dtype=np.bool_), -matrix, matrix)[:, known]
    front = np.zeros(len(matrix), dtype=np.bool_)
    if costs.shape[1] == 0:
        return ~front
    # In lexicographic order a row can only be dominated by one before it, so each row that is left at the head is on the front.
    left = np.lexsort(costs.T[::-1])
    while left.size:
        head = left[0]
        front[head] = True
        rest = costs[left]
        beaten = (rest >= costs[head]).all(axis=1) & (rest > costs[head]).any(axis=1)
        same = (rest == costs[head]).all(axis=1)
        front[left[same]] = True
        left = left[~beaten & ~same]
    return front
