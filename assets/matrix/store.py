"""What the matrix stage needs of the catalog. `assets.catalog.repository.Catalog` implements it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from assets.matrix.generate import Matrix
from assets.matrix.spec import Batch, ModelVersion
from assets.models.facts import ModelFacts


@dataclass(frozen=True, slots=True)
class MatrixCounts:
    """How many configurations of a model are stored."""

    generated: int
    feasible: int
    rejected: Mapping[str, int]

    @property
    def agree(self) -> bool:
        """Whether every configuration has exactly one verdict."""
        return self.generated == self.feasible + sum(self.rejected.values())


class MatrixStore(Protocol):
    """Facts in, the matrix out."""

    def model(self, model_id: str) -> ModelFacts:
        """The facts of a registered model. Raises an error that names the model when it is not registered."""
        ...

    def model_versions(self, model_id: str) -> Sequence[ModelVersion]:
        """The registered versions of a model; none where its weights are not here (a GPU engine fetches them)."""
        ...

    def save_matrix(self, matrices: Sequence[Matrix], batches: Sequence[Batch]) -> None:
        """Store every cell of the matrices in `benchmark_configs`, in one transaction. Storing the same matrix again changes nothing.

        Model versions that occur (`Matrix.model_versions`) and are not registered yet are added, without weights. The
        `partition_key` of a cell is that of the batch that holds its configuration; None for a rejected one. The columns:
        `vram_required_bytes = cell.vram.required_bytes`, `vram_available_bytes = cell.vram.available_bytes` and
        `vram_quick_estimate_bytes = cell.vram_quick_estimate_bytes`, all three over all devices; `vram_parts = cell.vram.parts`,
        per device; `rejection_code` and `rejection_detail` of `cell.rejection`. A stored configuration whose verdict has changed
        gets the new one; its measurements stay.
        """
        ...

    def matrix_counts(self, model_id: str) -> MatrixCounts:
        """What is stored of a model, counted by the store."""
        ...
