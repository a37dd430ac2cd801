"""Checkpoints in S3: measured by the real worker, killed, resumed, taken in once. And what is said when the storage fails."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from assets.benchmark import checkpoint
from assets.benchmark.batch import BatchError, BatchRun
from assets.benchmark.checkpoint import CheckpointStore, CorruptCheckpointError
from assets.benchmark.engines.process import free_port
from assets.benchmark.executors.protocol import WorkerExit
from assets.benchmark.executors.subprocess import SubprocessExecutor
from assets.benchmark.job import Job
from assets.benchmark.job_file import checkpoint_location, job_text, write_job
from assets.benchmark.progress import Event
from assets.benchmark.storage.lease import LEASE_NAME, Lease
from assets.benchmark.storage.protocol import CheckpointError, ObjectFolder, UnreachableError
from assets.benchmark.storage.registry import open_folder
from assets.benchmark.worker import EXIT_BAD_JOB, EXIT_CHECKPOINT, EXIT_DONE
from assets.catalog.repository import Catalog
from assets.matrix.spec import Batch
from assets.models.artifacts import LocalArtifact
from tests.deadlines import eventually
from tests.integration.benchmark.gcs import gcs_running
from tests.integration.benchmark.s3 import SECRET, S3Server, running
from tests.integration.benchmark.support import (
    PROTOCOL,
    WatchedExecutor,
    assert_nothing_runs,
    batch_run,
    job_of,
    kill_worker,
    launches,
    materialize,
    measured,
    processes,
)
from tests.unit.benchmark.builders import measurement

ROOT = Path(__file__).resolve().parents[3]
REQUESTS = [{"index": 0, "ttft_ms": 2.0}]


@pytest.fixture(params=["s3", "gs"])
def folder(request: pytest.FixtureRequest, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectFolder]:
    """A batch's folder in a bucket of either kind."""
    if request.param == "s3":
        yield open_folder(f"s3://{s3.make_bucket()}/team/dyno/key/demo-r0")
        return
    with gcs_running() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield open_folder("gs://bucket/team/dyno/key/demo-r0")


def remote_job(batch: Batch, artifact: LocalArtifact, state_dir: Path, root: str) -> Job:
    """A job of the whole batch with its checkpoints under `root`."""
    return replace(job_of(batch, artifact, state_dir), checkpoint_dir=checkpoint_location(root, batch.partition_key, PROTOCOL, 0))


def worker(*arguments: str, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m assets.benchmark` in a process of its own, as in a pod."""
    return subprocess.run(
        [sys.executable, "-m", "assets.benchmark", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_writes_are_conditional(folder: ObjectFolder) -> None:
    """Created once, replaced only as it was read, and gone without a fuss."""
    assert folder.get("x") is None
    first = folder.create("x", b"first")
    assert first is not None
    assert folder.create("x", b"second") is None
    there = folder.get("x")
    assert there is not None
    assert (there.content, there.version) == (b"first", first)
    second = folder.replace("x", b"second", first)
    assert second is not None
    assert folder.replace("x", b"third", first) is None
    assert folder.replace("absent", b"third", first) is None
    there = folder.get("x")
    assert there is not None
    assert there.content == b"second"
    folder.delete("x")
    folder.delete("x")
    assert folder.get("x") is None


def test_a_damaged_object_is_replaced_once(folder: ObjectFolder) -> None:
    """Both of two workers saw the damage; the second one to replace it finds what the first one wrote."""
    store = CheckpointStore(folder)
    config_id = store.save(measurement(), REQUESTS).config_id
    folder.put(f"{config_id}.json", b"torn")
    with pytest.raises(CorruptCheckpointError, match="measured again"):
        store.load(config_id)
    winner = store.save(measurement(), [{"index": 1}])
    assert store.save(measurement(), [{"index": 2}]) == winner
    assert store.finished([config_id]) == ({config_id: winner}, [])


def test_the_lease_of_a_killed_worker_is_taken_over_and_the_zombie_learns_of_it(folder: ObjectFolder) -> None:
    with Lease(folder, lease_s=0.5) as zombie:
        document = {"holder": "other", "host": "elsewhere", "heartbeat_at_s": time.time(), "expires_at_s": 0.0}
        folder.put(LEASE_NAME, json.dumps(document).encode())
        with Lease(folder):
            while not zombie.lost():
                time.sleep(0.05)
    there = folder.get(LEASE_NAME)
    assert there is not None
    assert json.loads(there.content)["expires_at_s"] == 0.0  # the second one's, given back


def test_a_missing_bucket_ends_the_worker_with_one_sentence(s3: S3Server, batch: Batch, artifact: LocalArtifact, state_dir: Path) -> None:
    ended = worker("--job", "-", stdin=job_text(remote_job(batch, artifact, state_dir, "s3://no-such-bucket/dyno")))
    assert ended.returncode == EXIT_CHECKPOINT
    [line] = ended.stderr.splitlines()
    assert "there is no such bucket: make it, or correct DYNO_CHECKPOINTS" in line
    with pytest.raises(CheckpointError, match="there is no such bucket"):
        open_folder("s3://no-such-bucket/dyno").get("x")


def test_a_storage_that_does_not_answer_ends_the_worker_with_one_sentence(batch: Batch, artifact: LocalArtifact, state_dir: Path) -> None:
    """After a bounded number of tries, before an engine is started, and without a word of the credentials."""
    ended = worker(
        "--job",
        "-",
        "--work-dir",
        str(state_dir),
        stdin=job_text(remote_job(batch, artifact, state_dir, "s3://bucket/dyno")),
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}",
        AWS_ACCESS_KEY_ID="dyno",
        AWS_SECRET_ACCESS_KEY=SECRET,
    )
    assert ended.returncode == EXIT_CHECKPOINT
    [line] = ended.stderr.splitlines()
    assert "the object storage does not answer" in line
    assert "AWS_ENDPOINT_URL; what is finished is kept" in line
    [event] = [json.loads(line) for line in (state_dir / "progress.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (event["kind"], event["retryable"]) == ("checkpoint", True)
    assert SECRET not in ended.stderr + ended.stdout + (state_dir / "progress.jsonl").read_text(encoding="utf-8")


def test_a_measurement_waits_for_a_storage_that_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It took minutes of a GPU. Here the storage is back at the first pause between two tries."""
    server = S3Server(free_port())
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    pauses: list[float] = []
    with contextlib.ExitStack() as stack:

        def come_back(pause_s: float) -> None:
            pauses.append(pause_s)
            stack.enter_context(running(tmp_path / "moto.log", server.port))
            server.make_bucket("comes-back")

        monkeypatch.setattr(checkpoint, "sleep", come_back)
        store = CheckpointStore(open_folder("s3://comes-back/dyno"))
        with pytest.raises(UnreachableError, match="does not answer"):
            store.load("c" * 32)
        saved = store.save(measurement(), REQUESTS)
        assert store.load(saved.config_id) == saved
    assert len(pauses) == 1


class FinishesElsewhere(SubprocessExecutor):
    """An executor on another machine, of which only the progress arrives here."""

    def run(self, job: Job, environment: Mapping[str, str], on_poll: Callable[[Sequence[Event]], None]) -> WorkerExit:
        on_poll([{"event": "load_point_finished", "config_id": job.configurations[0]["config_id"]}])
        return WorkerExit(EXIT_DONE, "")


@pytest.mark.services
def test_a_storage_that_is_away_for_the_run_alone_does_not_end_the_worker(
    catalog: Catalog, batch: Batch, artifact: LocalArtifact, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the worker measures it is told and no more; at the end it is a failure after which a retry helps."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "dyno")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    run = batch_run(catalog, batch, state_dir, "s3://bucket/dyno")
    notes: list[str] = []
    run.on_note = notes.append
    with pytest.raises(BatchError, match="does not answer") as caught:
        run.measure({configuration.config_id for configuration in batch.configurations}, artifact, FinishesElsewhere(), {})
    assert (caught.value.kind, caught.value.retryable) == ("checkpoint", True)
    assert ["does not answer" in note for note in notes] == [True]


@pytest.mark.engine
@pytest.mark.services
def test_a_batch_in_s3_survives_what_kills_its_workers(
    *,
    s3: S3Server,
    catalog: Catalog,
    catalog_url: str,
    batch: Batch,
    artifact: LocalArtifact,
    state_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SIGTERM in a load point, SIGKILL after another, then to the end: each load point once, the stopped one marked, never counted."""
    bucket = s3.make_bucket()
    ids = {configuration.config_id for configuration in batch.configurations}
    prefix = f"dyno/{batch.partition_key}/{PROTOCOL}-r0"
    work_dir = state_dir / "checkpoints"
    engines_environment: dict[str, str] = {}

    def attempt() -> BatchRun:
        return batch_run(catalog, batch, state_dir, f"s3://{bucket}/dyno")

    def terminate() -> None:
        [engine] = processes(state_dir, "llamacpp_server")
        engines_environment.update(engine.environ())
        kill_worker(state_dir, signal.SIGTERM)

    run = attempt()
    executor = WatchedExecutor(lambda event: event["event"] == "load_point_started", terminate, work_dir)
    with pytest.raises(BatchError, match="asked to stop") as caught:
        run.measure(run.remaining(), artifact, executor, {})
    assert (caught.value.kind, caught.value.retryable) == ("stopped", True)
    assert "PATH" in engines_environment
    assert not [name for name in engines_environment if name.startswith("AWS_")]
    assert_nothing_runs(state_dir)
    [stopped] = [name.partition(".")[0] for name in s3.names(bucket, prefix) if name.endswith(".partial.json")]
    partial = CheckpointStore(open_folder(run.location)).partial(stopped)
    assert partial is not None
    assert 0 <= partial.requests_done < partial.requests == 20
    first = measured(catalog_url)
    assert stopped not in first

    run = attempt()
    executor = WatchedExecutor(lambda event: event["event"] == "load_point_finished", lambda: kill_worker(state_dir), work_dir)
    with pytest.raises(BatchError, match="killed by signal 9"):
        run.measure(run.remaining(), artifact, executor, {})
    assert_nothing_runs(state_dir)
    second = measured(catalog_url)
    assert first.items() < second.items()
    assert set(second) < ids

    # through the asset this time; the worker waits for the killed one's lease
    monkeypatch.setenv("DYNO_CHECKPOINTS", f"s3://{bucket}/dyno")
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(catalog, batch, SubprocessExecutor(work_dir), instance)
    assert result.success
    [event] = result.asset_materializations_for_node("benchmark_cpu")
    assert event.metadata["checkpoints"].value == f"s3://{bucket}/{prefix}"
    assert event.metadata["load_points_added"].value == len(ids) - len(second)
    stored = measured(catalog_url)
    assert set(stored) == ids
    assert second.items() <= stored.items()
    assert len(launches(catalog_url)) == 1
    assert attempt().remaining() == set()
    assert_the_bucket_holds_each_load_point_once(s3.names(bucket, prefix), ids)
    logs = [path for path in work_dir.rglob("*") if path.is_file()]
    assert {path.name for path in logs} >= {"job.json", "worker.log", "progress.jsonl", "engine.log"}
    assert all(SECRET.encode() not in path.read_bytes() for path in logs)


def assert_the_bucket_holds_each_load_point_once(names: set[str], ids: set[str]) -> None:
    """A measurement for each and its evidence, the lease, and nothing else. A kill may leave evidence that no measurement names."""
    evidence = {name for name in names if name.endswith(".requests.jsonl.gz")}
    assert {name.partition(".")[0] for name in evidence} == ids
    assert names == {LEASE_NAME, *evidence, *(f"{config_id}.json" for config_id in ids)}


@pytest.mark.engine
def test_a_pods_worker_reads_its_job_from_the_object_storage(s3: S3Server, batch: Batch, artifact: LocalArtifact, state_dir: Path) -> None:
    """One load point, with nothing of it on this machine's disk; a second start finds it finished. Progress is JSON lines in the log."""
    root = f"s3://{s3.make_bucket()}/dyno"
    job = remote_job(batch, artifact, state_dir, root)
    job = replace(job, configurations=job.configurations[:1])
    open_folder(f"{root}/jobs").put("one.json", job_text(job).encode())
    ended = worker("--job", f"{root}/jobs/one.json", "--progress-json")
    assert ended.returncode == EXIT_DONE, ended.stderr
    events = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [event["event"] for event in events if event["event"].startswith("load_point")] == ["load_point_started", "load_point_finished"]
    finished, damaged = CheckpointStore(open_folder(job.checkpoint_dir)).finished([str(job.configurations[0]["config_id"])])
    assert (len(finished), damaged) == (1, [])
    assert not (state_dir / "checkpoints").exists()

    again = worker("--job", "-", "--progress-json", stdin=job_text(job))
    assert again.returncode == EXIT_DONE
    [started] = [event for line in again.stderr.splitlines() if (event := json.loads(line))["event"] == "batch_started"]
    assert (started["load_points"], started["finished"]) == (0, 1)


def test_a_second_worker_is_kept_out_while_the_first_one_lives(
    s3: S3Server, batch: Batch, artifact: LocalArtifact, state_dir: Path
) -> None:
    """It waits for a heartbeat, and says which machine to look at. A retry can help: the first one may be about to end."""
    job = remote_job(batch, artifact, state_dir, f"s3://{s3.make_bucket()}/dyno")
    with Lease(open_folder(job.checkpoint_dir), lease_s=6.0) as first:
        ended = worker("--job", "-", "--progress-json", stdin=job_text(job))
        assert not first.lost()
    assert ended.returncode == EXIT_CHECKPOINT
    event = json.loads(ended.stderr)
    assert (event["kind"], event["retryable"]) == ("checkpoint", True)
    assert f"another worker, on {socket.gethostname()}" in event["detail"]


@pytest.mark.engine
def test_a_worker_whose_lease_is_taken_over_stops_measuring(s3: S3Server, batch: Batch, artifact: LocalArtifact, state_dir: Path) -> None:
    """It was thought dead, and its retry has begun: going on would be work for nothing."""
    job = replace(remote_job(batch, artifact, state_dir, f"s3://{s3.make_bucket()}/dyno"), protocol="standard")
    write_job(job, state_dir / "job.json")
    folder = open_folder(job.checkpoint_dir)
    zombie = subprocess.Popen(
        [sys.executable, "-m", "assets.benchmark", "--job", str(state_dir / "job.json")], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        eventually(lambda: folder.get(LEASE_NAME), "the first worker has the lease")
        now = time.time()
        retry = {"holder": "retry", "host": "elsewhere", "heartbeat_at_s": now, "expires_at_s": now + 3600}
        folder.put(LEASE_NAME, json.dumps(retry).encode())
        _, said = zombie.communicate(timeout=120)
    finally:
        zombie.kill()
    assert zombie.returncode == EXIT_CHECKPOINT
    assert f"another worker has taken over {job.checkpoint_dir}" in said.splitlines()[-1]
    assert_nothing_runs(state_dir)


def test_a_job_that_is_not_there_is_a_bad_job(s3: S3Server) -> None:
    ended = worker("--job", f"s3://{s3.make_bucket()}/jobs/none.json")
    assert ended.returncode == EXIT_BAD_JOB
    assert "there is no such object" in ended.stderr
