"""What the demo does, stage by stage: register models, measure their batches, rank. Each stage is a real Dagster run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from dagster import AssetKey, AssetSelection, DagsterInstance
from rich.progress import Progress, TaskID

from assets.benchmark.job import PROTOCOLS
from assets.benchmark.job_file import checkpoint_directory
from assets.benchmark.progress import PROGRESS_NAME
from assets.catalog.queries import MeasuredPoint
from assets.catalog.repository import Catalog
from assets.matrix.batches import batches_of
from assets.matrix.generate import matrices_of
from assets.matrix.spec import Batch
from orchestration import console
from orchestration.definitions import MODELS_PARTITIONS, definitions
from orchestration.runs import Runs

QUANTIZATIONS = ("q8_0", "q4_0")
WORKLOAD = "chat_short"
HARDWARE = "cpu"
PROTOCOL = PROTOCOLS["demo"]
FOLLOW_INTERVAL_S = 0.2


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to do."""


class DemoFlow:
    """Runs the stages on the instance that DAGSTER_HOME names; needs the environment of `process_environment`."""

    def __init__(self, state_dir: Path, catalog: Catalog) -> None:
        self._state_dir = state_dir
        self._catalog = catalog
        self._instance = DagsterInstance.get()
        self._definitions = definitions()
        self._runs = Runs(self._definitions, self._instance, "demo")

    def register(self, model_ids: Sequence[str]) -> None:
        """Load the reference data; register each model and its matrix. A model that is there already is registered again: it costs a second.

        Raises:
            RunFailedError: a run failed.
        """
        with console.progress() as progress:
            task = progress.add_task("reference data", total=1 + len(model_ids))
            self._runs.materialize([AssetKey("reference_data")])
            progress.advance(task)
            for model_id in model_ids:
                progress.update(task, description=f"{model_id}: facts, weights, matrix")
                self._instance.add_dynamic_partitions(MODELS_PARTITIONS, [model_id])
                self._runs.materialize([AssetKey("model"), AssetKey("test_matrix")], model_id)
                progress.advance(task)
            progress.update(task, description=f"registered {', '.join(model_ids)}")

    def batches(self, model_ids: Sequence[str]) -> tuple[Batch, ...]:
        """The demo's batches: each model in two quantizations, under one workload.

        Raises:
            DemoError: a model has none.
        """
        chosen: list[Batch] = []
        for model_id in model_ids:
            here = [batch for batch in self._all_batches(model_id) if batch.deployment.hardware_id == HARDWARE and _workload(batch) == WORKLOAD]
            preferred = [batch for batch in here if batch.deployment.model_version.quantization in QUANTIZATIONS]
            if not here:
                raise DemoError(f"nothing of {model_id} can run on this machine: see ./dyno matrix {model_id} --rejected for the reasons")
            chosen += preferred or here[: len(QUANTIZATIONS)]
        return tuple(chosen)

    def _all_batches(self, model_id: str) -> tuple[Batch, ...]:
        return batches_of(matrices_of(self._catalog.model(model_id), self._catalog.model_versions(model_id)))

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
                task = progress.add_task(f"{version.model_id} {version.quantization}", total=None)
                path = checkpoint_directory(self._state_dir, batch.partition_key, PROTOCOL.name, 0) / PROGRESS_NAME
                with _followed(progress, task, path):
                    self._runs.materialize([AssetKey(asset)], batch.partition_key, {asset: {"protocol": PROTOCOL.name}})
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
            graph = self._definitions.resolve_asset_graph()
            marts = AssetSelection.groups("rankings").resolve(graph)
            self._runs.materialize([AssetKey("benchmark_results"), *sorted(marts, key=lambda key: key.path)])
        console.done("results checked, marts built and tested")


def _workload(batch: Batch) -> str:
    return batch.configurations[0].load_point.workload.name


@contextmanager
def _followed(progress: Progress, task: TaskID, path: Path) -> Iterator[None]:
    """Show on a progress bar what the worker writes to its progress file while the block runs."""
    finished = Event()
    before = path.stat().st_mtime_ns if path.exists() else 0

    def follow() -> None:
        bar = _Bar(progress, task)
        offset = 0
        while not finished.wait(FOLLOW_INTERVAL_S):
            if not path.exists() or path.stat().st_mtime_ns == before:
                continue
            with path.open(encoding="utf-8") as file:
                file.seek(offset)
                for line in iter(file.readline, ""):
                    if not line.endswith("\n"):
                        break
                    offset += len(line.encode())
                    bar.show(json.loads(line))

    thread = Thread(target=follow, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
        total = progress.tasks[task].total
        progress.update(task, total=total or 1, completed=total or 1)


class _Bar:
    """One batch as a bar of requests."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task
        self._key = progress.tasks[task].description
        self._done_before = 0
        self._load_points = 1
        self._requests = 0

    def show(self, event: Mapping[str, Any]) -> None:
        match event["event"]:
            case "batch_started":
                self._load_points = event["load_points"]
            case "engine_started":
                self._describe(f"engine up after {event['start_s']:.1f} s")
            case "load_point_started":
                self._requests = event["requests"]
                self._describe(f"concurrency {event['concurrency']}")
                self._progress.update(self._task, total=max(self._load_points, 1) * self._requests)
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
