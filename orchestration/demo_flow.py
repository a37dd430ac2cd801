"""What the demo does, stage by stage: register models, measure their batches, rank. Each stage is a real Dagster run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from dagster import AssetKey, AssetSelection, DagsterInstance
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from assets.benchmark.job import PROTOCOLS
from assets.benchmark.job_file import checkpoint_directory
from assets.benchmark.progress import PROGRESS_NAME, ProgressFollower
from assets.benchmark.runner import request_bounds
from assets.catalog.queries import MeasuredPoint
from assets.catalog.repository import Catalog
from assets.matrix.batches import batches_of
from assets.matrix.generate import matrices_of
from assets.matrix.spec import Batch
from assets.models.assets import MODEL_KEY, MODELS_PARTITIONS
from assets.models.registration import prepare_model
from assets.rankings.assets import GROUP as RANKINGS_GROUP
from orchestration import console
from orchestration.definitions import defs
from orchestration.runs import Runs
from orchestration.settings import Settings

QUANTIZATIONS = ("q8_0", "q4_0")
WORKLOAD = "chat_short"
HARDWARE = "cpu"
PROTOCOL = PROTOCOLS["demo"]
FOLLOW_INTERVAL_S = 0.2
SMALL_FILE_BYTES = 1 << 20


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to do."""


class DemoFlow:
    """Runs the stages on the instance that DAGSTER_HOME names; needs the environment of `process_environment`."""

    def __init__(self, settings: Settings, catalog: Catalog) -> None:
        self._settings = settings
        self._catalog = catalog
        self._instance = DagsterInstance.get()
        self._runs = Runs(defs, self._instance, "demo")

    def register(self, models: Mapping[str, str | None]) -> None:
        """Put the weights in place, with progress; then load the reference data, register each model and store its matrix.

        Raises:
            ModelsError: a model cannot be had.
            DemoError: a model has no weights that the local engine reads.
            RunFailedError: a run failed.
        """
        for model_id, hub_id in models.items():
            self._prepare(model_id, hub_id)
        with console.progress() as progress:
            task = progress.add_task("reference data", total=1 + len(models))
            self._runs.materialize([AssetKey("reference_data")])
            progress.advance(task)
            for model_id, hub_id in models.items():
                progress.update(task, description=f"{model_id}: facts and matrix")
                self._instance.add_dynamic_partitions(MODELS_PARTITIONS, [model_id])
                config = {"model": {"hub_id": hub_id or ""}}
                self._runs.materialize([MODEL_KEY, AssetKey("test_matrix")], model_id, config)
                progress.advance(task)
            progress.update(task, description=f"registered {', '.join(models)}")

    def _prepare(self, model_id: str, hub_id: str | None) -> None:
        with _BytesProgress() as progress, _warnings_shown():
            registration = prepare_model(model_id, hub_id, self._settings.models_config(), progress.show)
        if not registration.weights:
            raise DemoError(f"{hub_id or model_id} cannot be measured on this machine: {registration.no_weights}")
        console.done(f"{model_id}: weights in {', '.join(weights.quantization for weights in registration.weights)}, checked")

    def batches(self, models: Mapping[str, str | None]) -> tuple[Batch, ...]:
        """The demo's batches: each model in two quantizations where it has them, under one workload.

        Raises:
            DemoError: a model has none.
        """
        chosen: list[Batch] = []
        for model_id in models:
            matrices = matrices_of(self._catalog.model(model_id), self._catalog.model_versions(model_id))
            here = [b for b in batches_of(matrices) if b.deployment.hardware_id == HARDWARE and _workload(b) == WORKLOAD]
            if not here:
                raise DemoError(f"nothing of {model_id} can run on this machine: no configuration of {WORKLOAD} fits its memory")
            preferred = [batch for batch in here if batch.deployment.model_version.quantization in QUANTIZATIONS]
            chosen += preferred or here[: len(QUANTIZATIONS)]
        return tuple(chosen)

    def measure(self, batches: Sequence[Batch]) -> int:
        """Materialize the batches; returns how many load points were measured now, rather than before.

        Raises:
            RunFailedError: a run failed.
        """
        before = len(self.measured(batches))
        asset = f"benchmark_{HARDWARE}"
        with console.progress() as progress:
            for batch in batches:
                version = batch.deployment.model_version
                name = f"{version.model_id.rpartition('--')[2]} {version.quantization}"
                task = progress.add_task(name, total=None)
                path = checkpoint_directory(self._settings.state_dir, batch.partition_key, PROTOCOL.name, 0) / PROGRESS_NAME
                with _followed(progress, task, path):
                    self._runs.materialize([AssetKey(asset)], batch.partition_key, {asset: {"protocol": PROTOCOL.name}})
                total = progress.tasks[task].total or _requests(batch)
                there = progress.tasks[task].description == name
                progress.update(task, total=total, completed=total, description=f"{name}: measured before" if there else None)
        return len(self.measured(batches)) - before

    def measured(self, batches: Sequence[Batch]) -> Sequence[MeasuredPoint]:
        """What the catalog holds of these batches under the demo's protocol."""
        points = self._catalog.measurements_of(partition_keys=[batch.partition_key for batch in batches])
        return [point for point in points if point.protocol == PROTOCOL.name and point.repeat == 0]

    def rank(self) -> None:
        """Check the results and rebuild the marts.

        Raises:
            RunFailedError: a run failed.
        """
        with console.err.status("checking the results and ranking them with dbt"):
            marts = AssetSelection.groups(RANKINGS_GROUP).resolve(defs.resolve_asset_graph())
            self._runs.materialize([AssetKey("benchmark_results"), *sorted(marts)])
        console.done("results checked, marts built and tested")


class _BytesProgress:
    """A bar for each large file that is made or fetched; nothing is shown where all are there."""

    def __init__(self) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console.err)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _BytesProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._tasks:
            self._progress.stop()

    def show(self, what: str, done_bytes: int, total_bytes: int) -> None:
        if 0 < total_bytes < SMALL_FILE_BYTES:
            return
        if not self._tasks:
            self._progress.start()
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total_bytes or None)
        self._progress.update(self._tasks[what], completed=done_bytes)


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """A damaged file that is made anew is worth a line."""

    class Shown(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            console.warn(record.getMessage())

    handler, logger = Shown(logging.WARNING), logging.getLogger("assets.models")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _requests(batch: Batch) -> int:
    return sum(request_bounds(PROTOCOL, configuration.load_point.concurrency or 1)[1] for configuration in batch.configurations)


def _workload(batch: Batch) -> str:
    return batch.configurations[0].load_point.workload.name


@contextmanager
def _followed(progress: Progress, task: TaskID, path: Path) -> Iterator[None]:
    """Show on a progress bar what the worker writes to its progress file while the block runs."""
    finished = Event()
    before = path.stat().st_mtime_ns if path.exists() else 0

    def follow() -> None:
        bar, follower = _Bar(progress, task), ProgressFollower(path)
        while not finished.wait(FOLLOW_INTERVAL_S):
            if path.exists() and path.stat().st_mtime_ns != before:
                for event in follower.new_events():
                    bar.show(event)

    thread = Thread(target=follow, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


class _Bar:
    """One batch as a bar of requests."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task
        self._key = progress.tasks[task].description
        self._done_before = 0
        self._requests = 0

    def show(self, event: Mapping[str, Any]) -> None:
        match event["event"]:
            case "batch_started":
                self._progress.update(self._task, total=event["requests"])
            case "engine_started":
                self._describe(f"engine up after {event['start_s']:.1f} s")
            case "load_point_started":
                self._requests = event["requests"]
                self._describe(f"concurrency {event['concurrency']}")
            case "requests_done":
                self._progress.update(self._task, completed=self._done_before + event["done"])
            case "load_point_finished":
                self._done_before += self._requests
                self._progress.update(self._task, completed=self._done_before)
                self._describe(f"concurrency {event['concurrency']}: {event['output_tokens_per_s']:.0f} tokens/s")
            case _:
                pass

    def _describe(self, text: str) -> None:
        self._progress.update(self._task, description=f"{self._key}: {text}")
