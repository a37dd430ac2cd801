"""What goes wrong around an engine has a type, an exit code and one sentence; what is finished is kept."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from assets.benchmark import runner
from assets.benchmark.batch import BatchError
from assets.benchmark.checkpoint import CheckpointStore
from assets.benchmark.engines import process
from assets.benchmark.engines.llamacpp import LlamaCpp
from assets.benchmark.engines.process import EngineProcess, free_port
from assets.benchmark.engines.protocol import Launch, PortTakenError
from assets.benchmark.executors.subprocess import SubprocessExecutor
from assets.benchmark.job import Job
from assets.benchmark.job_file import read_job, write_job
from assets.benchmark.progress import Reporter
from assets.benchmark.storage.local import LocalFolder
from assets.benchmark.worker import EXIT_BAD_JOB, EXIT_CHECKPOINT, EXIT_ENGINE_FAILED
from assets.catalog.repository import Catalog
from assets.matrix.spec import Batch
from assets.models.artifacts import LocalArtifact
from tests.integration.benchmark.support import assert_nothing_runs, batch_run, folder_of, job_of

pytestmark = pytest.mark.engine
ROOT = Path(__file__).resolve().parents[3]
FULL = Path("/dev/full")  # the kernel's own full disk: every write fails with ENOSPC


def worker(job: Job, folder: Path, stderr: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`python -m assets.benchmark` in a process of its own."""
    write_job(job, folder / "job.json")
    with contextlib.ExitStack() as stack:
        return subprocess.run(
            [sys.executable, "-m", "assets.benchmark", "--job", str(folder / "job.json")],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=stack.enter_context(stderr.open("wb")) if stderr else subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )


@contextlib.contextmanager
def occupied_port() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port: int = other.getsockname()[1]
        yield port


def test_torn_weights_are_a_typed_failure_without_a_retry(batch: Batch, artifact: LocalArtifact, state_dir: Path) -> None:
    """The engine's own words are in the sentence, and no engine stays."""
    torn = state_dir / "torn.gguf"
    torn.write_bytes(artifact.model_path.read_bytes()[: artifact.model_path.stat().st_size // 2])
    ended = worker(job_of(batch, artifact, state_dir, model_path=torn), state_dir)
    assert ended.returncode == EXIT_ENGINE_FAILED
    assert "corrupt_weights: llama.cpp did not start: the model file is missing or damaged" in ended.stderr
    assert "Traceback" not in ended.stderr
    events = [json.loads(line) for line in (folder_of(batch, state_dir) / "progress.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (events[-1]["event"], events[-1]["kind"], events[-1]["retryable"]) == ("failed", "corrupt_weights", False)
    assert_nothing_runs(state_dir)


def test_another_version_of_the_engine_is_not_measured_in_its_name(batch: Batch, artifact: LocalArtifact, state_dir: Path) -> None:
    """A result must be of the version that its configuration names."""
    job = job_of(batch, artifact, state_dir)
    ended = worker(replace(job, deployment={**job.deployment, "framework_version": "2020.1.1"}), state_dir)
    assert ended.returncode == EXIT_BAD_JOB
    assert "the batch is for llama.cpp 2020.1.1, but" in ended.stderr


def test_a_taken_port_is_found_before_the_engine_starts(artifact: LocalArtifact, tmp_path: Path) -> None:
    """Otherwise the answers of whoever listens there would be measured."""
    with occupied_port() as port, pytest.raises(PortTakenError, match=str(port)):
        EngineProcess(LlamaCpp(), Launch(str(artifact.model_path), port, 1, 64), tmp_path / "engine.log", 30).__enter__()
    assert not (tmp_path / "engine.log").exists()


def test_a_port_lost_between_the_check_and_the_start_is_the_engines_to_tell(
    artifact: LocalArtifact, state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check cannot see who comes after it: then llama.cpp itself fails to bind, and its words are understood."""
    monkeypatch.setattr(process, "check_port", lambda host, port: None)
    with occupied_port() as port, pytest.raises(PortTakenError, match="taken by another process"):
        EngineProcess(LlamaCpp(), Launch(str(artifact.model_path), port, 1, 64), tmp_path / "engine.log", 30).__enter__()
    assert_nothing_runs(state_dir)


def test_the_batch_goes_on_with_another_port(
    batch: Batch, artifact: LocalArtifact, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chosen port is taken at the moment of the start: another one is chosen, and the load point is measured."""
    job = job_of(batch, artifact, state_dir)
    write_job(replace(job, configurations=job.configurations[-1:]), state_dir / "job.json")
    with occupied_port() as port:
        ports = iter([port, free_port()])
        monkeypatch.setattr(runner, "free_port", lambda: next(ports))
        folder = folder_of(batch, state_dir)
        store = CheckpointStore(LocalFolder(folder))
        with store.locked():
            outcome = runner.Runner(read_job(state_dir / "job.json"), store, Reporter(), lambda: False, folder).run()
    assert (outcome.measured, outcome.failed) == (1, 0)
    assert_nothing_runs(state_dir)


@pytest.mark.parametrize("folder", ["/sys/dyno", "/proc/dyno", "/dev/null/dyno"])
def test_a_checkpoint_folder_that_cannot_be_made_ends_with_one_sentence(
    folder: str, batch: Batch, artifact: LocalArtifact, state_dir: Path
) -> None:
    """Read-only, forbidden, or no folder: said before an engine is started, for root too."""
    ended = worker(replace(job_of(batch, artifact, state_dir), checkpoint_dir=folder), state_dir)
    assert ended.returncode == EXIT_CHECKPOINT
    [line] = ended.stderr.splitlines()
    assert line.startswith(f"checkpoint: cannot use {folder}: ")


def test_a_full_disk_at_the_start_ends_with_one_sentence(batch: Batch, artifact: LocalArtifact, state_dir: Path) -> None:
    """The folder is proved before an engine is started: hours of measuring must not end in a file that cannot be written."""
    folder = folder_of(batch, state_dir)
    folder.mkdir(parents=True)
    (folder / ".probe.part").symlink_to(FULL)
    ended = worker(job_of(batch, artifact, state_dir), state_dir)
    assert ended.returncode == EXIT_CHECKPOINT
    [line] = ended.stderr.splitlines()
    assert "the disk is full: free some space and start again; what is finished is kept" in line


def test_a_disk_that_fills_up_in_mid_batch_keeps_what_is_finished(batch: Batch, artifact: LocalArtifact, state_dir: Path) -> None:
    """Progress and log are on the same disk: that they cannot be written changes neither the outcome nor the exit code."""
    first, second, _ = (configuration.config_id for configuration in batch.configurations)
    folder = folder_of(batch, state_dir)
    folder.mkdir(parents=True)
    (folder / f"{second}.json.part").symlink_to(FULL)
    (folder / "progress.jsonl").symlink_to(FULL)
    ended = worker(job_of(batch, artifact, state_dir), state_dir, stderr=FULL)
    assert ended.returncode == EXIT_CHECKPOINT
    finished, damaged = CheckpointStore(LocalFolder(folder)).finished([first, second])
    assert (set(finished), damaged) == ({first}, [])
    assert_nothing_runs(state_dir)


@pytest.mark.services
def test_the_platforms_side_of_a_full_disk_is_a_typed_failure(
    catalog: Catalog, batch: Batch, artifact: LocalArtifact, state_dir: Path
) -> None:
    """The job file is the first that does not fit. A retry cannot help: somebody has to free space."""
    folder = folder_of(batch, state_dir)
    folder.mkdir(parents=True)
    (folder / "job.json").symlink_to(FULL)
    run = batch_run(catalog, batch, state_dir)
    with pytest.raises(BatchError, match="the disk is full") as caught:
        run.measure(run.remaining(), artifact, SubprocessExecutor(), {})
    assert (caught.value.kind, caught.value.retryable) == ("checkpoint", False)

    shutil.rmtree(folder)
    folder.mkdir()
    (folder / ".probe.part").symlink_to(FULL)
    with pytest.raises(BatchError, match="the disk is full") as caught:
        run.measure(run.remaining(), artifact, SubprocessExecutor(), {})
    assert (caught.value.kind, caught.value.retryable) == ("checkpoint", False)
