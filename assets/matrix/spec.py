"""The terms of the matrix: hardware config, deployment, workload, load point, configuration, batch; and their content hashes.

An id is the first 32 hexadecimal digits of the SHA-256 of the canonical JSON of the spec (sorted keys, no blanks), so that the
same spec has the same id everywhere and for ever.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

LoadMode = Literal["closed", "open"]


def canonical_json(spec: Mapping[str, object]) -> bytes:
    """The one way in which a spec is written before it is hashed."""
    return json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def content_id(spec: Mapping[str, object]) -> str:
    """The id of a spec: 128 bits of SHA-256 over its canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(spec)).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class HardwareConfig:
    """GPU type x count, for example `h100-80gb-x4`; `gpu_count` is 0 for the `cpu` config."""

    hardware_id: str
    gpu_type: str
    gpu_count: int
    memory_bytes_per_device: int
    memory_bandwidth_bytes_per_s: float
    compute_capability: float | None
    source: str

    @property
    def devices(self) -> int:
        """How many devices share the weights: the GPUs, or the one CPU host."""
        return max(1, self.gpu_count)


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """Model x quantization x weights revision."""

    model_id: str
    quantization: str
    revision: str

    @property
    def spec(self) -> dict[str, object]:
        return {"model_id": self.model_id, "quantization": self.quantization, "revision": self.revision}

    @property
    def model_version_id(self) -> str:
        return content_id(self.spec)


@dataclass(frozen=True)
class Deployment:
    """One engine launch: model version x engine (with version and flags) x hardware config."""

    model_version: ModelVersion
    framework: str
    framework_version: str
    hardware_id: str
    tensor_parallel: int = 1
    flags: Mapping[str, str | int | float | bool] = field(default_factory=dict)

    @cached_property
    def spec(self) -> dict[str, object]:
        return {
            "model_version": self.model_version.spec,
            "framework": self.framework,
            "framework_version": self.framework_version,
            "hardware_id": self.hardware_id,
            "tensor_parallel": self.tensor_parallel,
            "flags": dict(self.flags),
        }

    @cached_property
    def deployment_id(self) -> str:
        return content_id(self.spec)


@dataclass(frozen=True, slots=True)
class Workload:
    """A pattern of requests. Lengths are means in tokens of the model's own tokenizer."""

    name: str
    input_tokens: int
    output_tokens: int
    description: str = ""

    @property
    def spec(self) -> dict[str, object]:
        return {"name": self.name, "input_tokens": self.input_tokens, "output_tokens": self.output_tokens}


@dataclass(frozen=True, slots=True)
class LoadPoint:
    """A workload at one load level: closed loop at `concurrency`, or open loop at `request_rate_per_s`."""

    workload: Workload
    mode: LoadMode = "closed"
    concurrency: int | None = None
    request_rate_per_s: float | None = None

    @property
    def spec(self) -> dict[str, object]:
        return {
            "workload": self.workload.spec,
            "mode": self.mode,
            "concurrency": self.concurrency,
            "request_rate_per_s": self.request_rate_per_s,
        }


@dataclass(frozen=True)
class Configuration:
    """Deployment x load point: one cell of the matrix."""

    deployment: Deployment
    load_point: LoadPoint

    @cached_property
    def config_id(self) -> str:
        return content_id({"deployment": self.deployment.spec, "load_point": self.load_point.spec})


@dataclass(frozen=True)
class Batch:
    """Up to 100 configurations of one deployment, served by one engine launch. One Dagster partition, one job.

    `partition_key` is readable and stable: `model__quantization__framework__[workload__]<first 8 of the deployment id>-<n>`.
    """

    partition_key: str
    deployment: Deployment
    configurations: tuple[Configuration, ...]
