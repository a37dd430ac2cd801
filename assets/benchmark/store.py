"""What the benchmark stage needs of the catalog. `assets.catalog.repository.Catalog` implements it; the worker never sees it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from assets.benchmark.job import Measurement
from assets.matrix.spec import Batch


class UnknownBatchError(LookupError):
    """No feasible configuration carries this partition key."""

    def __init__(self, partition_key: str) -> None:
        super().__init__(f"batch {partition_key!r} is not in the catalog: materialize test_matrix for its model first")


class RejectedMeasurementError(Exception):
    """The store refuses a measurement, and would refuse it again; the message says which and why."""


@dataclass(frozen=True, slots=True)
class BatchFailure:
    """Something that went wrong with a batch (`config_id` None) or with one of its load points.

    `attempt` counts from 1. `needs_review` is set once the retries are used up, or where a retry cannot help.
    """

    partition_key: str
    config_id: str | None
    run_id: str | None
    attempt: int
    failure_kind: str
    detail: str
    needs_review: bool


class ResultStore(Protocol):
    """Batches in, measurements and failures out. "Done" is a row of `job_checkpoints (config_id, protocol, repeat)`."""

    def batch(self, partition_key: str) -> Batch:
        """The batch with its feasible configurations, in the order in which to measure them. Raises UnknownBatchError."""
        ...

    def done(self, config_ids: Collection[str], protocol: str, repeat: int) -> set[str]:
        """Those of `config_ids` that are measured under this protocol at this repeat."""
        ...

    def next_repeat(self, config_ids: Collection[str], protocol: str) -> int:
        """The lowest repeat at which at least one of `config_ids` is not measured yet (0 for a fresh batch).

        Defined so that the retry of an interrupted re-measurement goes on with the same repeat.
        """
        ...

    def add(self, measurement: Measurement, run_id: str | None) -> bool:
        """Insert the measurement, its telemetry and its checkpoint row in one transaction; False when the load point is already in.

        Raises RejectedMeasurementError.
        """
        ...

    def record_failure(self, failure: BatchFailure) -> None:
        """Append one row to `job_failures`."""
        ...

    def batches_needing_review(self, hardware_id: str) -> Mapping[str, str]:
        """Partition key -> latest failure detail, of batches marked `needs_review` with no load point completed since."""
        ...
