"""Whatever is killed, what is finished stays finished, the rest is measured later, and no engine is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from assets.benchmark.batch import BatchError
from assets.benchmark.checkpoint import CheckpointStore
from assets.benchmark.executors.subprocess import SubprocessExecutor
from assets.benchmark.job_file import write_job
from assets.benchmark.progress import Event
from assets.benchmark.storage.local import LocalFolder
from assets.catalog.repository import Catalog
from assets.matrix.spec import Batch
from assets.models.artifacts import LocalArtifact
from tests.deadlines import eventually
from tests.integration.benchmark.support import (
    NoHardware,
    WatchedExecutor,
    assert_nothing_runs,
    batch_run,
    folder_of,
    job_of,
    kill_engine,
    kill_worker,
    launches,
    materialize,
    measured,
    processes,
)

pytestmark = [pytest.mark.engine, pytest.mark.services]
ROOT = Path(__file__).resolve().parents[3]


def test_a_worker_killed_in_mid_batch_loses_and_repeats_nothing(
    catalog: Catalog, catalog_url: str, batch: Batch, artifact: LocalArtifact, state_dir: Path
) -> None:
    """kill -9 after the first load point; the asset then measures what is missing, and a third time nothing."""
    ids = {configuration.config_id for configuration in batch.configurations}
    run = batch_run(catalog, batch, state_dir)
    executor = WatchedExecutor(lambda event: event["event"] == "load_point_finished", lambda: kill_worker(state_dir))
    with pytest.raises(BatchError, match="killed by signal 9") as caught:
        run.measure(run.remaining(), artifact, executor, {})
    assert (caught.value.kind, caught.value.retryable) == ("worker_killed", True)
    assert_nothing_runs(state_dir)
    first = measured(catalog_url)
    assert 0 < len(first) < len(ids)
    assert set(first) == {measurement.config_id for measurement in run.added}

    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(catalog, batch, SubprocessExecutor(), instance)
        assert result.success
        [event] = result.asset_materializations_for_node("benchmark_cpu")
        assert event.metadata["load_points_added"].value == len(ids) - len(first)
        both = measured(catalog_url)
        assert set(both) == ids
        assert first.items() <= both.items()
        assert_nothing_runs(state_dir)

        # all is done: not even the hardware is asked for
        assert materialize(catalog, batch, NoHardware(), instance).success
    assert measured(catalog_url) == both
    assert len(launches(catalog_url)) == 1


def test_an_engine_that_dies_in_mid_batch_is_a_typed_failure(
    catalog: Catalog, catalog_url: str, batch: Batch, artifact: LocalArtifact, state_dir: Path
) -> None:
    """The load point under way is not stored: its numbers would be those of a dying engine."""
    run = batch_run(catalog, batch, state_dir)

    def second_load_point(event: Event) -> bool:
        return event["event"] == "load_point_started" and event["concurrency"] == 2

    with pytest.raises(BatchError, match=r"llama\.cpp ended by itself with exit code -9") as caught:
        run.measure(run.remaining(), artifact, WatchedExecutor(second_load_point, lambda: kill_engine(state_dir)), {})
    assert (caught.value.kind, caught.value.retryable) == ("crashed", True)
    assert_nothing_runs(state_dir)
    stored = measured(catalog_url)
    assert 0 < len(stored) < len(batch.configurations)
    assert set(stored) == {measurement.config_id for measurement in run.added}


def test_a_killed_parent_leaves_no_engine(batch: Batch, artifact: LocalArtifact, state_dir: Path) -> None:
    """kill -9 of the process that runs the executor (a Dagster run): worker and engine go with it."""
    job_path = state_dir / "job.json"
    write_job(job_of(batch, artifact, state_dir), job_path)
    parent = subprocess.Popen([sys.executable, "-m", "tests.integration.benchmark.execute", str(job_path)], cwd=ROOT)
    try:
        progress = folder_of(batch, state_dir) / "progress.jsonl"
        eventually(lambda: progress.exists() and "load_point_started" in progress.read_text(encoding="utf-8"), "a load point is under way")
        assert len(processes(state_dir, "llamacpp_server")) == 1
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    assert_nothing_runs(state_dir)


def test_a_damaged_checkpoint_is_measured_again_on_the_same_launch(
    catalog: Catalog, catalog_url: str, batch: Batch, artifact: LocalArtifact, state_dir: Path
) -> None:
    """The load point at concurrency 1 is alone when it is repeated; the engine is launched for the batch's 4 all the same."""
    ended = SubprocessExecutor().run(job_of(batch, artifact, state_dir), {}, lambda _: None)
    assert ended.exit_code == 0, ended.log_tail
    folder = folder_of(batch, state_dir)
    before = {c.config_id: CheckpointStore(LocalFolder(folder)).load(c.config_id) for c in batch.configurations}
    damaged = batch.configurations[0].config_id
    content = (folder / f"{damaged}.json").read_bytes()
    (folder / f"{damaged}.json").write_bytes(content[: len(content) // 2])

    notes: list[str] = []
    run = batch_run(catalog, batch, state_dir)
    run.on_note = notes.append
    assert run.remaining() == {damaged}
    assert [damaged in note and "measured again" in note for note in notes] == [True]
    run.measure({damaged}, artifact, SubprocessExecutor(), {})

    stored = measured(catalog_url)
    for config_id, measurement in before.items():
        assert measurement is not None
        assert (stored[config_id] == measurement.measurement_id) == (config_id != damaged)
    [launch] = launches(catalog_url)
    assert "--parallel=4" in launch


def test_weights_that_were_changed_wait_for_a_person(catalog: Catalog, batch: Batch, artifact: LocalArtifact, state_dir: Path) -> None:
    """A retry cannot help: the asset fails at once, and the catalog says which file is wrong."""
    content = bytearray(artifact.model_path.read_bytes())
    content[-1] ^= 1
    artifact.model_path.unlink()
    artifact.model_path.write_bytes(content)
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(catalog, batch, SubprocessExecutor(), instance)
    assert not result.success
    review = catalog.batches_needing_review("cpu")
    assert "model.gguf" in review[batch.partition_key]
    assert not folder_of(batch, state_dir).exists()
