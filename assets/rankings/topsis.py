"""TOPSIS: rank by closeness to the ideal and distance from the anti-ideal.

Source of the method and of the formulas: C.-L. Hwang and K. Yoon, "Multiple Attribute Decision Making", Springer 1981, chapter III 2.4,
with vector normalization: r_ij = x_ij / sqrt(sum_i x_ij^2), v_ij = w_j r_ij, closeness = S- / (S+ + S-).
`dbt_project/models/intermediate/int_topsis_scores.sql` computes the same in SQL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Scores are rounded so that candidates that are equal but for floating-point noise tie, here and in SQL.
SCORE_DIGITS = 12


@dataclass(frozen=True, slots=True)
class TopsisResult:
    """`scores` 0 to 1, one per candidate; `ranks` from 1 without gaps, ties share one; `weights` as used: 0 where left out, sum 1."""

    scores: Floats
    ranks: npt.NDArray[np.int64]
    weights: Floats


def topsis(values: npt.ArrayLike, weights: npt.ArrayLike, maximize: Sequence[bool]) -> TopsisResult:
    """Rank the candidates (rows of `values`) by the criteria (columns).

    A criterion that is unknown (NaN) for any candidate is left out for all and the other weights are rescaled to sum 1. Candidates
    that do not differ in any criterion that counts all score 1. Raises ValueError when the shapes do not fit or a weight is negative.
    """
    matrix = np.asarray(values, dtype=np.float64)
    given = np.asarray(weights, dtype=np.float64)
    better_high = np.asarray(maximize, dtype=np.bool_)
    if matrix.ndim != 2 or given.shape != (matrix.shape[1],) or better_high.shape != given.shape:
        raise ValueError(f"expected one weight and one direction for each column, got {matrix.shape}, {given.shape}, {better_high.shape}")
    if not np.all(given >= 0):
        raise ValueError("a weight is negative or not a number")

    used = np.where(np.isnan(matrix).any(axis=0), 0.0, given)
    total = used.sum()
    used = used / total if total > 0 else used
    weighted = _vector_normalized(np.where(used > 0, matrix, 0.0)) * used

    if len(matrix) == 0:
        return TopsisResult(np.empty(0), np.empty(0, dtype=np.int64), used)
    best = np.where(better_high, weighted.max(axis=0), weighted.min(axis=0))
    worst = np.where(better_high, weighted.min(axis=0), weighted.max(axis=0))
    to_best = np.sqrt(((weighted - best) ** 2).sum(axis=1))
    to_worst = np.sqrt(((weighted - worst) ** 2).sum(axis=1))
    span = to_best + to_worst
    scores = np.where(span > 0, to_worst / np.where(span > 0, span, 1.0), 1.0).round(SCORE_DIGITS)
    return TopsisResult(scores, _dense_ranks(scores), used)


def _vector_normalized(matrix: Floats) -> Floats:
    # scaled by the largest first, so that squaring neither overflows nor vanishes
    largest = np.abs(matrix).max(axis=0, initial=0.0)
    scaled = matrix / np.where(largest > 0, largest, 1.0)
    norms = np.sqrt((scaled**2).sum(axis=0))
    return np.asarray(scaled / np.where(norms > 0, norms, 1.0), dtype=np.float64)


def _dense_ranks(scores: Floats) -> npt.NDArray[np.int64]:
    _, positions = np.unique(-scores, return_inverse=True)
    return np.asarray(positions + 1, dtype=np.int64)
