"""What the models stage needs of the catalog. `assets.catalog.repository.Catalog` implements it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from assets.models.facts import ModelFacts


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights that lie in the state folder, ready for the local engine.

    `revision` identifies their content; `files` tells size and SHA-256 by file name (`{"model.gguf": {"size_bytes": 1, "sha256": "..."}}`).
    """

    model_id: str
    quantization: str
    revision: str
    size_bytes: int
    files: Mapping[str, Mapping[str, str | int]]


class ModelStore(Protocol):
    """Facts and weights in."""

    def hub_id_of(self, model_id: str) -> str | None:
        """The hub id of a registered model; None where the model is not registered, or not from the hub."""
        ...

    def register_model(self, facts: ModelFacts) -> bool:
        """Store a model's facts; True when it is new or its facts changed."""
        ...

    def register_weights(self, weights: Weights) -> None:
        """Store a model version whose weights are in place; of one quantization, the one registered last counts."""
        ...
