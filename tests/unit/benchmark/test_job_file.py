"""A job says in full what is wrong with it before an engine is started for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assets.benchmark.job import PROTOCOLS, Job
from assets.benchmark.job_file import JobError, configurations_of, deployment_of, launch_size, plan_of, read_job, write_job
from assets.benchmark.runner import request_bounds
from tests.unit.benchmark.builders import batch

BATCH = batch()


def job() -> Job:
    return Job(
        partition_key=BATCH.partition_key,
        deployment=deployment_of(BATCH.deployment),
        deployment_id=BATCH.deployment.deployment_id,
        configurations=configurations_of(BATCH, {configuration.config_id for configuration in BATCH.configurations}),
        model_path="model.gguf",
        tokenizer_path=None,
        protocol="demo",
        checkpoint_dir="checkpoints",
        launch_parallel=4,
        launch_tokens_per_request=128,
    )


def document(path: Path) -> dict[str, Any]:
    write_job(job(), path)
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def test_a_job_comes_back_as_a_plan(tmp_path: Path) -> None:
    write_job(job(), tmp_path / "folder" / "job.json")
    plan = read_job(tmp_path / "folder" / "job.json")
    assert [point.concurrency for point in plan.load_points] == [1, 2, 4]
    assert [point.config_id for point in plan.load_points] == [configuration.config_id for configuration in BATCH.configurations]
    assert (plan.framework, plan.flags) == ("llama.cpp", {"threads": 1})
    assert (plan.job.launch_parallel, plan.job.launch_tokens_per_request) == launch_size(BATCH) == (4, 128)


def test_only_the_remaining_configurations_go_into_a_job() -> None:
    chosen = BATCH.configurations[1].config_id
    assert [configuration["config_id"] for configuration in configurations_of(BATCH, {chosen})] == [chosen]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: d.pop("model_path"), r"missing fields \['model_path'\]"),
        (lambda d: d.update(colour="red"), r"unknown fields \['colour'\]"),
        (lambda d: d.update(checkpoint_dir="https://bucket/x"), "checkpoint_dir: expected a folder"),
        (lambda d: d.update(checkpoint_dir="s3://key:s3cret@bucket/x"), "checkpoint_dir: expected .* credentials come by the environment"),
        (lambda d: d.update(protocol="quick"), "protocol: 'quick' is unknown; one of standard, demo"),
        (lambda d: d.update(configurations=[]), "at least one is needed"),
        (lambda d: d.update(repeat=-1), "repeat: a whole number of at least 0"),
        (lambda d: d.update(engine_start_timeout_s=0), "engine_start_timeout_s"),
        (lambda d: d.update(launch_parallel=0), "launch_parallel: a whole number of at least 1"),
        (lambda d: d.update(launch_parallel=2), r"configurations\[2\]: 4 requests at once .* do not fit the launch, which is for 2"),
        (lambda d: d.update(launch_tokens_per_request=127), r"of 128 tokens do not fit the launch"),
        (lambda d: d.update(deployment=[]), "deployment: an object is needed"),
        (lambda d: d["configurations"].append(d["configurations"][0]), "there twice"),
        (lambda d: d["configurations"][1]["load_point"].update(concurrency=0), r"configurations\[1\]\.load_point\.concurrency"),
        (lambda d: d["configurations"][0]["load_point"].update(mode="open"), "closed-loop load only"),
        (lambda d: d["configurations"][0]["load_point"]["workload"].update(input_tokens="many"), r"workload\.input_tokens"),
    ],
)
def test_a_bad_field_is_named(tmp_path: Path, spoil: Callable[[dict[str, Any]], object], message: str) -> None:
    content = document(tmp_path / "job.json")
    del content["format"]
    spoil(content)
    with pytest.raises(JobError, match=message):
        plan_of(content)


@pytest.mark.parametrize(
    ("content", "message"), [("{", "is not JSON"), ("[]", "is not of format 1"), ('{"format": 2}', "is not of format 1")]
)
def test_a_file_that_is_no_job_is_a_clear_error(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "job.json").write_text(content, encoding="utf-8")
    with pytest.raises(JobError, match=message):
        read_job(tmp_path / "job.json")
    with pytest.raises(JobError, match="cannot read the job file"):
        read_job(tmp_path / "none.json")


def test_requests_per_load_point_follow_the_protocol() -> None:
    """The minimum, or seven a stream where that is more (a first wave, a steady window, a drain); two a stream in the demo."""
    standard, demo = PROTOCOLS["standard"], PROTOCOLS["demo"]
    bounds = [request_bounds(standard, concurrency) for concurrency in (1, 50, 64, 256, 512)]
    assert bounds == [(100, 500), (350, 500), (448, 500), (1792, 1792), (3584, 3584)]
    assert [request_bounds(demo, concurrency) for concurrency in (8, 16)] == [(20, 20), (32, 32)]
