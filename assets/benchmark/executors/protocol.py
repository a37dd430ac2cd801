"""What an executor does: run one job on hardware that it can provide, and tell how it goes meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from assets.benchmark.job import Job
from assets.benchmark.progress import Event
from assets.matrix.spec import HardwareConfig


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """How a worker ended: its exit code (see assets.benchmark.worker; negative for a signal) and the last lines of its log."""

    exit_code: int
    log_tail: str


class Executor(Protocol):
    """Runs `python -m assets.benchmark` somewhere. Finished load points appear in the job's checkpoint folder."""

    def unavailable(self, hardware: HardwareConfig) -> str | None:
        """Why this executor cannot provide the hardware, as a sentence that says what to do; None when it can."""
        ...

    def run(self, job: Job, environment: Mapping[str, str], on_poll: Callable[[Sequence[Event]], None]) -> WorkerExit:
        """Run the worker to its end.

        `environment` is added to the worker's. `on_poll` is called about twice a second with the worker's new events, and once more
        after its end.
        However this call ends, by an exception (a cancelled run) too, the worker and its engine are gone.
        Raises CheckpointError when the job's files cannot be written from here.
        """
        ...
