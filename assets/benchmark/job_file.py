"""The job as JSON: written by the platform, read and checked by the worker."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assets.benchmark.job import PROTOCOLS, Job, Protocol
from assets.benchmark.load.endpoint import Endpoint, EndpointError
from assets.benchmark.storage.location import inside, parse_location
from assets.benchmark.storage.registry import open_folder
from assets.matrix.spec import Batch, Deployment, Workload

FORMAT = 1
STDIN = "-"


class JobError(ValueError):
    """The job cannot be done as it is written; the message names the field and what it should be."""


@dataclass(frozen=True, slots=True)
class PlannedLoadPoint:
    """One configuration of the job, checked."""

    config_id: str
    workload: Workload
    concurrency: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A job, checked and typed."""

    job: Job
    protocol: Protocol
    hardware_id: str
    framework: str
    framework_version: str
    quantization: str | None
    tensor_parallel: int
    flags: Mapping[str, str | int | float | bool]
    load_points: tuple[PlannedLoadPoint, ...]


def checkpoint_directory(state_dir: Path, partition_key: str, protocol: str, repeat: int) -> Path:
    """The folder of one batch in the state folder: the worker's logs, and what it has finished unless that is kept elsewhere."""
    return state_dir / "checkpoints" / partition_key / f"{protocol}-r{repeat}"


def checkpoint_location(root: str, partition_key: str, protocol: str, repeat: int) -> str:
    """Where in `root`, a folder or a URL, the worker keeps what it has finished of one batch. Raises ValueError."""
    return inside(root, partition_key, f"{protocol}-r{repeat}")


def configurations_of(batch: Batch, config_ids: frozenset[str] | set[str]) -> tuple[Mapping[str, object], ...]:
    """Those configurations of a batch, in its order, as a job carries them."""
    return tuple(
        {"config_id": configuration.config_id, "load_point": configuration.load_point.spec}
        for configuration in batch.configurations
        if configuration.config_id in config_ids
    )


def launch_size(batch: Batch) -> tuple[int, int]:
    """What one engine launch must hold for all of a batch: requests at once, and tokens (prompt and output) of the longest request."""
    points = [configuration.load_point for configuration in batch.configurations]
    parallel = max(point.concurrency or 1 for point in points)
    return parallel, max(point.workload.input_tokens + point.workload.output_tokens for point in points)


def deployment_of(deployment: Deployment) -> dict[str, object]:
    """A deployment as a job carries it: its spec."""
    return dict(deployment.spec)


def job_text(job: Job) -> str:
    """The job as JSON, as the worker reads it."""
    return json.dumps({"format": FORMAT, **dataclasses.asdict(job)}, indent=2, sort_keys=True) + "\n"


def write_job(job: Job, path: Path) -> None:
    """Write the job file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(job_text(job), encoding="utf-8")


def read_job(source: str | Path) -> Plan:
    """Read and check a job: a file, an object by its URL, or `-` for standard input. Raises JobError, CheckpointError."""
    try:
        document = json.loads(_text_of(str(source)))
    except OSError as error:
        raise JobError(f"cannot read the job file {source}: {error.strerror}") from error
    except ValueError as error:
        raise JobError(f"the job file {source} is not JSON: {error}") from error
    if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
        raise JobError(f"the job file {source} is not of format {FORMAT}: write it with assets.benchmark.job_file.write_job")
    return plan_of(document)


def _text_of(source: str) -> str:
    if source == STDIN:
        return sys.stdin.read()
    if "://" not in source:
        return Path(source).read_text(encoding="utf-8")
    folder, _, name = source.rpartition("/")
    there = open_folder(folder).get(name)
    if there is None:
        raise JobError(f"cannot read the job file {source}: there is no such object")
    return there.content.decode("utf-8")


def plan_of(document: Mapping[str, Any]) -> Plan:
    """Check a job's fields. Raises JobError."""
    fields = {field.name: field for field in dataclasses.fields(Job)}
    unknown = sorted(set(document) - set(fields))
    missing = sorted(name for name, field in fields.items() if field.default is dataclasses.MISSING and name not in document)
    if unknown or missing:
        raise JobError(f"job: missing fields {missing}, unknown fields {unknown}")
    for name in ("partition_key", "deployment_id", "model_path", "checkpoint_dir"):
        _text(document[name], name)
    try:
        parse_location(document["checkpoint_dir"])
    except ValueError as error:
        raise JobError(f"checkpoint_dir: {error}") from error
    _check_engine(document)
    protocol = PROTOCOLS.get(_text(document["protocol"], "protocol"))
    if protocol is None:
        raise JobError(f"protocol: {document['protocol']!r} is unknown; one of {', '.join(PROTOCOLS)}")
    for name in ("repeat", "seed"):
        _integer(document.get(name, 0), name, minimum=0)
    parallel = _integer(document["launch_parallel"], "launch_parallel", minimum=1)
    tokens_per_request = _integer(document["launch_tokens_per_request"], "launch_tokens_per_request", minimum=1)
    timeout_s = document.get("engine_start_timeout_s", 300.0)
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or timeout_s <= 0:
        raise JobError(f"engine_start_timeout_s: {timeout_s!r} is not a positive number of seconds")

    deployment = _mapping(document["deployment"], "deployment")
    quantization = _mapping(deployment.get("model_version", {}), "deployment.model_version").get("quantization")
    configurations = document["configurations"]
    if not isinstance(configurations, list | tuple) or not configurations:
        raise JobError("configurations: at least one is needed")
    points = tuple(_load_point(item, f"configurations[{index}]") for index, item in enumerate(configurations))
    if len({point.config_id for point in points}) < len(points):
        raise JobError("configurations: a config_id is there twice")
    for index, point in enumerate(points):
        tokens = point.workload.input_tokens + point.workload.output_tokens
        if point.concurrency > parallel or tokens > tokens_per_request:
            raise JobError(
                f"configurations[{index}]: {point.concurrency} requests at once of {tokens} tokens do not fit the launch, which is for "
                f"{parallel} of {tokens_per_request} (launch_parallel, launch_tokens_per_request)"
            )
    return Plan(
        job=Job(**{**document, "configurations": tuple(configurations)}),
        protocol=protocol,
        hardware_id=_text(deployment.get("hardware_id"), "deployment.hardware_id"),
        framework=_text(deployment.get("framework"), "deployment.framework"),
        framework_version=_text(deployment.get("framework_version"), "deployment.framework_version"),
        quantization=None if quantization is None else _text(quantization, "deployment.model_version.quantization"),
        tensor_parallel=_integer(deployment.get("tensor_parallel", 1), "deployment.tensor_parallel", minimum=1),
        flags=_mapping(deployment.get("flags", {}), "deployment.flags"),
        load_points=points,
    )


def _check_engine(document: Mapping[str, Any]) -> None:
    """The optional fields that say where engine and tokenizer are. Raises JobError."""
    for name in ("tokenizer_path", "engine_environments", "engine_url"):
        if document.get(name) is not None:
            _text(document[name], name)
    if document.get("engine_url") is not None:
        try:
            Endpoint.parse(document["engine_url"])
        except EndpointError as error:
            raise JobError(f"engine_url: {error}") from error
    _text(document.get("served_model_name", "model"), "served_model_name")


def _load_point(item: object, where: str) -> PlannedLoadPoint:
    configuration = _mapping(item, where)
    point = _mapping(configuration.get("load_point"), f"{where}.load_point")
    workload = _mapping(point.get("workload"), f"{where}.load_point.workload")
    if point.get("mode") != "closed":
        raise JobError(f"{where}.load_point.mode: this worker puts closed-loop load only, not {point.get('mode')!r}")
    return PlannedLoadPoint(
        config_id=_text(configuration.get("config_id"), f"{where}.config_id"),
        workload=Workload(
            name=_text(workload.get("name"), f"{where}.load_point.workload.name"),
            input_tokens=_integer(workload.get("input_tokens"), f"{where}.load_point.workload.input_tokens", minimum=1),
            output_tokens=_integer(workload.get("output_tokens"), f"{where}.load_point.workload.output_tokens", minimum=1),
        ),
        concurrency=_integer(point.get("concurrency"), f"{where}.load_point.concurrency", minimum=1),
    )


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise JobError(f"{where}: an object is needed, not {value!r}")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise JobError(f"{where}: a text is needed, not {value!r}")
    return value


def _integer(value: object, where: str, minimum: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise JobError(f"{where}: a whole number of at least {minimum} is needed, not {value!r}")
    return value
