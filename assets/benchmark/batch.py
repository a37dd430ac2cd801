"""One batch from the catalog's side: take in what is finished, have the rest measured, take that in as it comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from assets.benchmark.checkpoint import CheckpointStore
from assets.benchmark.executors.protocol import Executor, WorkerExit
from assets.benchmark.job import PROTOCOLS, Job, Measurement
from assets.benchmark.job_file import JobError, checkpoint_location, configurations_of, deployment_of, launch_size
from assets.benchmark.progress import Event
from assets.benchmark.storage.protocol import CheckpointError, UnreachableError
from assets.benchmark.storage.registry import open_folder
from assets.benchmark.store import RejectedMeasurementError, ResultStore
from assets.benchmark.worker import EXIT_BAD_JOB, EXIT_CHECKPOINT, EXIT_DONE
from assets.matrix.spec import Batch
from assets.models.artifacts import LocalArtifact

# What a worker may have to say before it has a progress file, or when it cannot write one: its exit code and its log tell.
_KINDS_WITHOUT_PROGRESS = {EXIT_BAD_JOB: "bad_job", EXIT_CHECKPOINT: "checkpoint"}


class BatchError(Exception):
    """A batch, or some of its load points, could not be measured. What is finished is in the catalog.

    `kind` is the type for the records, `load_points` the failures by config_id (kind, detail), `retryable` whether a retry can help.
    """

    def __init__(self, kind: str, detail: str, retryable: bool, load_points: Mapping[str, tuple[str, str]] | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.retryable = retryable
        self.load_points = load_points or {}


@dataclass(slots=True)
class BatchRun:
    """One attempt at one batch, protocol and repeat. `added` are the measurements that this attempt brought into the catalog.

    `checkpoints` is the folder or URL under which finished load points are kept; None: `checkpoints` in the state folder.
    """

    store: ResultStore
    batch: Batch
    protocol: str
    repeat: int
    state_dir: Path
    run_id: str | None
    on_note: Callable[[str], None]
    checkpoints: str | None = None
    engine_environments: Path | None = None
    added: list[Measurement] = field(default_factory=list)
    _load_point_failures: dict[str, tuple[str, str]] = field(default_factory=dict)
    _failure: Event | None = None

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise JobError(f"protocol: {self.protocol!r} is unknown; one of {', '.join(PROTOCOLS)}")
        self.state_dir = self.state_dir.absolute()

    @property
    def location(self) -> str:
        """The checkpoint folder that the worker writes to: a path or a URL."""
        root = self.checkpoints or str(self.state_dir / "checkpoints")
        return checkpoint_location(root, self.batch.partition_key, self.protocol, self.repeat)

    def remaining(self) -> set[str]:
        """The configurations that are not in the catalog yet, after taking in what an earlier attempt left on disk. Raises BatchError."""
        for sentence in self._ingest(self._not_done()):
            self.on_note(sentence)
        return self._not_done()

    def measure(self, remaining: set[str], artifact: LocalArtifact, executor: Executor, environment: Mapping[str, str]) -> None:
        """Have `remaining` measured, taking each load point in as it is finished. Raises BatchError."""
        # of the whole batch: a resumed one is launched as its first attempt was, or its load points could not be compared
        parallel, tokens_per_request = launch_size(self.batch)
        job = Job(
            partition_key=self.batch.partition_key,
            deployment=deployment_of(self.batch.deployment),
            deployment_id=self.batch.deployment.deployment_id,
            configurations=configurations_of(self.batch, remaining),
            model_path=str(artifact.model_path.absolute()),
            tokenizer_path=None if artifact.tokenizer_path is None else str(artifact.tokenizer_path.absolute()),
            protocol=self.protocol,
            checkpoint_dir=self.location,
            launch_parallel=parallel,
            launch_tokens_per_request=tokens_per_request,
            repeat=self.repeat,
            seed=self.repeat,
            engine_environments=None if self.engine_environments is None else str(self.engine_environments.absolute()),
        )
        try:
            ended = executor.run(job, environment, self._on_poll)
        except CheckpointError as error:
            raise BatchError("checkpoint", str(error), retryable=error.retryable) from error
        self._ingest(self._not_done())
        if ended.exit_code != EXIT_DONE or self._not_done():
            raise self._error(ended)

    def _not_done(self) -> set[str]:
        ids = [configuration.config_id for configuration in self.batch.configurations]
        return set(ids) - self.store.done(ids, self.protocol, self.repeat)

    def _on_poll(self, events: Sequence[Event]) -> None:
        finished: list[str] = []
        for event in events:
            match event["event"]:
                case "load_point_finished":
                    finished.append(str(event["config_id"]))
                case "load_point_failed":
                    self._load_point_failures[str(event["config_id"])] = (str(event["kind"]), str(event["detail"]))
                case "failed":
                    self._failure = event
                case _:
                    pass
        try:
            self._take_in(finished)
        except UnreachableError as error:
            # the worker is measuring: what is finished is taken in at its end, with everything else that is not in yet
            self.on_note(str(error))
        except CheckpointError as error:
            raise BatchError("checkpoint", str(error), retryable=error.retryable) from error

    def _ingest(self, config_ids: Sequence[str] | set[str]) -> list[str]:
        """Take finished load points in; returns a sentence about each damaged object. Raises BatchError."""
        try:
            return self._take_in(config_ids)
        except CheckpointError as error:
            raise BatchError("checkpoint", str(error), retryable=error.retryable) from error

    def _take_in(self, config_ids: Sequence[str] | set[str]) -> list[str]:
        """Raises CheckpointError, BatchError."""
        measurements, damaged = CheckpointStore(open_folder(self.location)).finished(sorted(config_ids))
        for measurement in measurements.values():
            try:
                if self.store.add(measurement, self.run_id):
                    self.added.append(measurement)
            except RejectedMeasurementError as error:
                raise BatchError("rejected", str(error), retryable=False) from error
        return damaged

    def _error(self, ended: WorkerExit) -> BatchError:
        if self._failure is not None:
            kind, detail = str(self._failure["kind"]), str(self._failure["detail"])
            return BatchError(kind, detail, bool(self._failure["retryable"]), self._load_point_failures)
        if self._load_point_failures:
            detail = "; ".join(f"{config_id[:8]}: {detail}" for config_id, (_, detail) in self._load_point_failures.items())
            return BatchError("load_point_failed", detail, True, self._load_point_failures)
        if ended.exit_code in _KINDS_WITHOUT_PROGRESS:
            lines = ended.log_tail.splitlines() or [f"the worker ended with exit code {ended.exit_code} and could not say why"]
            return BatchError(_KINDS_WITHOUT_PROGRESS[ended.exit_code], f"{lines[-1]} ({self.location})", retryable=False)
        if ended.exit_code < 0:
            return BatchError("worker_killed", f"the worker was killed by signal {-ended.exit_code}; what it had finished is kept", True)
        return BatchError("worker_failed", f"the worker ended with exit code {ended.exit_code}:\n{ended.log_tail}", True)
