"""Jobs, processes and rows, as the tests of this folder look at them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import dagster as dg
import psutil
from sqlalchemy import text

from assets.benchmark.assets import build_benchmark_asset, partitions_of
from assets.benchmark.batch import BatchRun
from assets.benchmark.executors.protocol import Executor, WorkerExit
from assets.benchmark.executors.subprocess import SubprocessExecutor
from assets.benchmark.job import Job
from assets.benchmark.job_file import checkpoint_directory, configurations_of, deployment_of, launch_size
from assets.benchmark.progress import Event
from assets.catalog.database import make_engine, transaction
from assets.catalog.repository import Catalog
from assets.matrix.dimensions import load_hardware
from assets.matrix.spec import Batch, HardwareConfig
from assets.models.artifacts import LocalArtifact
from assets.models.gguf_writer import GgufQuantization
from tests.deadlines import eventually

MODEL_ID: Final = "dyno-43m"
QUANTIZATION: Final[GgufQuantization] = "q4_0"
PROTOCOL: Final = "demo"


class WatchedExecutor(SubprocessExecutor):
    """The real executor; `act` is called once, when the worker tells of an event for which `when` is true."""

    def __init__(self, when: Callable[[Event], bool], act: Callable[[], None], work_dir: Path | None = None) -> None:
        super().__init__(work_dir)
        self._when = when
        self._act: Callable[[], None] | None = act

    def run(self, job: Job, environment: Mapping[str, str], on_poll: Callable[[Sequence[Event]], None]) -> WorkerExit:
        def watched(events: Sequence[Event]) -> None:
            on_poll(events)
            if self._act is not None and any(self._when(event) for event in events):
                act, self._act = self._act, None
                act()

        return super().run(job, environment, watched)


class NoHardware(SubprocessExecutor):
    """An executor that must not be asked to run anything."""

    def unavailable(self, hardware: HardwareConfig) -> str | None:
        return f"{hardware.hardware_id} is not here"


def batch_run(catalog: Catalog, batch: Batch, state_dir: Path, checkpoints: str | None = None) -> BatchRun:
    """One attempt, as the asset makes it."""
    return BatchRun(catalog, batch, PROTOCOL, 0, state_dir, "run", on_note=print, checkpoints=checkpoints)


def job_of(batch: Batch, artifact: LocalArtifact, state_dir: Path, model_path: Path | None = None) -> Job:
    """A job of the whole batch."""
    parallel, tokens_per_request = launch_size(batch)
    return Job(
        partition_key=batch.partition_key,
        deployment=deployment_of(batch.deployment),
        deployment_id=batch.deployment.deployment_id,
        configurations=configurations_of(batch, {configuration.config_id for configuration in batch.configurations}),
        model_path=str(model_path or artifact.model_path),
        tokenizer_path=str(artifact.tokenizer_path),
        protocol=PROTOCOL,
        checkpoint_dir=str(folder_of(batch, state_dir)),
        launch_parallel=parallel,
        launch_tokens_per_request=tokens_per_request,
    )


def folder_of(batch: Batch, state_dir: Path) -> Path:
    """Where the batch's checkpoints are."""
    return checkpoint_directory(state_dir, batch.partition_key, PROTOCOL, 0)


def materialize(catalog: Catalog, batch: Batch, executor: Executor, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """The batch's partition, through the asset."""
    hardware = load_hardware()["cpu"]
    name = partitions_of(hardware.hardware_id).name
    assert name is not None
    instance.add_dynamic_partitions(name, [batch.partition_key])
    return dg.materialize(
        [build_benchmark_asset(hardware)],
        partition_key=batch.partition_key,
        instance=instance,
        resources={"catalog": catalog, "benchmark_executor": executor},
        run_config={"ops": {"benchmark_cpu": {"config": {"protocol": PROTOCOL}}}},
        raise_on_error=False,
    )


def processes(state_dir: Path, module: str = "") -> list[psutil.Process]:
    """Workers and engines of this test: they name its state folder on their command line."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = " ".join(process.info["cmdline"] or [])
        if process.info["status"] != psutil.STATUS_ZOMBIE and str(state_dir) in command and module in command:
            found.append(process)
    return found


def kill_worker(state_dir: Path, number: signal.Signals = signal.SIGKILL) -> None:
    """A signal to the worker alone. Killed, its engine must go by itself."""
    [worker] = processes(state_dir, "-m assets.benchmark --job")
    os.kill(worker.pid, number)


def kill_engine(state_dir: Path) -> None:
    """SIGKILL to the engine."""
    [engine] = processes(state_dir, "llamacpp_server")
    os.kill(engine.pid, signal.SIGKILL)


def assert_nothing_runs(state_dir: Path) -> None:
    """Neither a worker nor an engine is left; the kernel needs a moment to bury them."""
    eventually(lambda: not processes(state_dir), "worker and engine are gone", timeout_s=10)


def measured(url: str) -> dict[str, str]:
    """measurement_id by config_id. Fails when a table of measurements has a row twice, or one that the other lacks."""
    engine = make_engine(url)
    with transaction(engine) as connection:
        results = connection.execute(text("SELECT config_id, measurement_id::text FROM catalog.benchmark_results ORDER BY 1")).all()
        checkpoints = connection.execute(text("SELECT config_id, measurement_id::text FROM catalog.job_checkpoints ORDER BY 1")).all()
    engine.dispose()
    rows = [(row.config_id, row.measurement_id) for row in results]
    assert rows == [(row.config_id, row.measurement_id) for row in checkpoints]
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def launches(url: str) -> set[str]:
    """The command lines of the engines that the stored measurements were made on, without the port."""
    engine = make_engine(url)
    with transaction(engine) as connection:
        commands: list[list[str]] = list(connection.scalars(text("SELECT engine -> 'command' FROM catalog.benchmark_results")))
    engine.dispose()
    return {" ".join(part for part in command if not part.startswith("--port=")) for command in commands}
