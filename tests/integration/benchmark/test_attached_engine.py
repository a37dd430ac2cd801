"""An engine that somebody else started is measured like one's own, and left running; what comes before a start is run before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from assets.benchmark.checkpoint import CheckpointStore
from assets.benchmark.engines.attached import AttachedEngine
from assets.benchmark.engines.llamacpp import LlamaCpp
from assets.benchmark.engines.process import EngineProcess, free_port
from assets.benchmark.engines.protocol import BadFlagError, CrashedError, EngineDriver, Launch, StartTimeoutError
from assets.benchmark.engines.transformers_serve import TransformersServe
from assets.benchmark.job import Job, Measurement
from assets.benchmark.job_file import JobError, read_job, write_job
from assets.benchmark.progress import Event, Reporter
from assets.benchmark.runner import Runner
from assets.benchmark.storage.local import LocalFolder
from assets.matrix.spec import Batch
from assets.models.artifacts import LocalArtifact, resolve_local_artifact
from assets.models.local.hugging_face import QUANTIZATION, ensure_local_safetensors
from tests.integration.benchmark.environments import environment_or_skip
from tests.integration.benchmark.support import MODEL_ID, folder_of, job_of

pytestmark = pytest.mark.engine
START_TIMEOUT_S = 180.0


def external(job: Job, driver: EngineDriver, launch: Launch) -> Job:
    """The first load point of the batch, on a server that is there."""
    deployment = {**job.deployment, "framework": "external", "framework_version": "unknown", "flags": {}}
    return replace(
        job,
        deployment=deployment,
        configurations=job.configurations[:1],
        engine_url=launch.base_url,
        served_model_name=driver.request_model(launch),
    )


def measure(job: Job, batch: Batch, state_dir: Path) -> tuple[Measurement, list[Event]]:
    """What the worker makes of the job, and what it tells."""
    write_job(job, state_dir / "job.json")
    events: list[Event] = []
    folder = folder_of(batch, state_dir)
    store = CheckpointStore(LocalFolder(folder))
    with store.locked():
        outcome = Runner(read_job(state_dir / "job.json"), store, Reporter(events.append), lambda: False, folder).run()
    assert (outcome.measured, outcome.failed) == (1, 0)
    [measurement] = store.finished([str(job.configurations[0]["config_id"])])[0].values()
    return measurement, events


def client_of(measurement: Measurement) -> dict[str, object]:
    """What the measurement says of the load generator."""
    client = measurement.host["client"]
    assert isinstance(client, dict)
    return client


def test_an_external_server_is_measured_and_left_running(batch: Batch, artifact: LocalArtifact, state_dir: Path, tmp_path: Path) -> None:
    """Whichever engine it is, its page is read."""
    launch = Launch(str(artifact.model_path), free_port(), 4, 128)
    with EngineProcess(LlamaCpp(), launch, tmp_path / "engine.log", START_TIMEOUT_S) as engine:
        measurement, _ = measure(external(job_of(batch, artifact, state_dir), LlamaCpp(), launch), batch, state_dir)
        engine.check_alive()
    assert (measurement.engine["name"], measurement.engine["launched"], measurement.engine["command"]) == ("external", False, [])
    assert client_of(measurement)["fixed_output_length"] is True
    counters, gauges = measurement.engine["counters"], measurement.engine["gauges_max"]
    assert isinstance(counters, dict)
    assert isinstance(gauges, dict)
    assert counters["generated_tokens"] >= measurement.requests_completed
    assert "running_requests" in gauges


def test_a_server_that_refuses_the_fields_of_a_fixed_length_is_measured_without(
    batch: Batch, artifact: LocalArtifact, state_dir: Path, tmp_path: Path
) -> None:
    """transformers serve answers `ignore_eos` with 422: the measurement says that lengths may differ, and so does the log."""
    environment = environment_or_skip("transformers")
    ensure_local_safetensors(MODEL_ID, state_dir)
    model = resolve_local_artifact(MODEL_ID, QUANTIZATION, state_dir).model_path
    launch = Launch(str(model), free_port(), 4, 128, environment=environment)
    with EngineProcess(TransformersServe(), launch, tmp_path / "engine.log", START_TIMEOUT_S):
        measurement, events = measure(external(job_of(batch, artifact, state_dir), TransformersServe(), launch), batch, state_dir)
    assert client_of(measurement)["fixed_output_length"] is False
    assert any("does not take ignore_eos" in str(event.get("text")) for event in events)


def test_an_external_engine_needs_an_address(batch: Batch, artifact: LocalArtifact, state_dir: Path) -> None:
    job = external(job_of(batch, artifact, state_dir), LlamaCpp(), Launch("m", 1, 1, 1))
    with pytest.raises(JobError, match="engine_url: external is not started by Dyno"):
        measure(replace(job, engine_url=None), batch, state_dir)
    with pytest.raises(JobError, match=r"engine_url: .* is not the address of a server"):
        measure(replace(job, engine_url="localhost"), batch, state_dir)


def test_an_engine_that_never_answers_is_waited_for_only_so_long() -> None:
    port = free_port()
    with pytest.raises(StartTimeoutError, match="is it up, and is this its address"):
        AttachedEngine(LlamaCpp(), Launch("m", port, 1, 1), f"http://127.0.0.1:{port}", 0.3).__enter__()


def test_an_attached_engine_that_goes_away_is_noticed(artifact: LocalArtifact, tmp_path: Path) -> None:
    launch = Launch(str(artifact.model_path), free_port(), 1, 64)
    with EngineProcess(LlamaCpp(), launch, tmp_path / "engine.log", START_TIMEOUT_S) as engine:
        attached = AttachedEngine(LlamaCpp(), launch, launch.base_url, START_TIMEOUT_S).__enter__()
        attached.check_alive()
        engine.stop()
        with pytest.raises(CrashedError, match="does not answer any more"):
            attached.check_alive()


class Prepared(LlamaCpp):
    """llama.cpp with something to do before its start."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command

    def prepare_commands(self, launch: Launch) -> Sequence[Sequence[str]]:
        return [self._command]


def test_what_comes_before_the_start_is_run_and_its_failure_is_the_engines(artifact: LocalArtifact, tmp_path: Path) -> None:
    launch = Launch(str(artifact.model_path), free_port(), 1, 64)
    with EngineProcess(Prepared(["touch", str(tmp_path / "made")]), launch, tmp_path / "engine.log", START_TIMEOUT_S):
        assert (tmp_path / "made").exists()
    failing = Prepared(["sh", "-c", "echo 'build: error: unrecognized arguments: --fast'; exit 2"])
    with pytest.raises(BadFlagError, match="unrecognized arguments: --fast"):
        EngineProcess(failing, launch, tmp_path / "engine.log", START_TIMEOUT_S).__enter__()
