"""What an inference engine's driver tells the worker, and how an engine can fail to start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from assets.benchmark.load.api_formats import ApiFormat
from assets.benchmark.load.server_counters import EngineMetrics


class EngineError(Exception):
    """An engine did not start, or stopped by itself. `kind` is the type for the records; `retryable` says whether a retry can help."""

    kind = "engine_error"
    retryable = True


class PortTakenError(EngineError):
    """Another process listens on the engine's port."""

    kind = "port_taken"


class OutOfMemoryError(EngineError):
    """The weights or the KV cache do not fit."""

    kind = "out_of_memory"
    retryable = False


class CorruptWeightsError(EngineError):
    """The model's files are missing, torn, or of another format."""

    kind = "corrupt_weights"
    retryable = False


class UnsupportedModelError(EngineError):
    """The engine has no code for this architecture, or not on this GPU or in this quantization."""

    kind = "unsupported_model"
    retryable = False


class BadFlagError(EngineError):
    """The engine does not know a flag or a value that it was given."""

    kind = "bad_flag"
    retryable = False


class DriverError(EngineError):
    """The GPU or its driver is at fault: no device, a driver of the wrong version, a memory error. Another machine may do."""

    kind = "driver_error"


class StartTimeoutError(EngineError):
    """The engine was not healthy in time."""

    kind = "start_timeout"


class CrashedError(EngineError):
    """The engine's process ended by itself, for a reason that its driver does not know."""

    kind = "crashed"


class UnknownEngineError(EngineError):
    """This worker has no driver for the engine, or the engine is not installed."""

    kind = "unknown_engine"
    retryable = False


FlagValue = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Option:
    """How an engine writes one flag. `kind` is what its value must be; a switch (bool) is `name` when on, and `off`, if any, when not."""

    name: str
    kind: type[str] | type[int] | type[float] | type[bool]
    off: str | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """One engine launch: what to load and how, where to listen, and for how many requests of how many tokens (prompt and output) at once.

    `model` is the file, the folder or the hub id, as the engine sees it; `quantization` is one of Dyno's (assets/models/facts.py). `flags`
    are the deployment's own, under its framework's names (assets/matrix/data/frameworks.yaml): where one says the same as a field here, the
    flag holds. `environment` is the folder of the Python environment that the engine is installed in, for an engine that is not in Dyno's.
    `scratch_dir` can be written where the engine runs.
    """

    model: str
    port: int
    parallel: int
    tokens_per_request: int
    tensor_parallel: int = 1
    flags: Mapping[str, FlagValue] = field(default_factory=dict)
    host: str = "127.0.0.1"
    quantization: str | None = None
    dtype: str = "auto"
    memory_fraction: float | None = None
    kv_cache_dtype: str = "auto"
    prefix_caching: bool = False
    dummy_weights: bool = False
    served_model_name: str = "model"
    environment: Path | None = None
    scratch_dir: str = "/tmp"  # noqa: S108  # of the engine's machine or container, for files that are the launch's own

    @property
    def base_url(self) -> str:
        """Where the engine's HTTP API is."""
        return f"http://{self.host}:{self.port}"

    @property
    def model_is_local(self) -> bool:
        """Whether the model is a file or folder, of which nothing has to be fetched from the hub."""
        return Path(self.model).is_absolute()


class EngineDriver(Protocol):
    """How to start one engine and how to talk to it. Everything else is the same for all of them.

    `health_path` answers 200 while the server lives, `ready_path` once it can generate: both after the weights are loaded, unless a
    driver says otherwise. `metrics_path` is None where there is no Prometheus page. `flags` are those that a deployment may set, by their
    names in frameworks.yaml. `fixes_output_length` says whether `body_fields` keep every answer as long as asked; where they cannot,
    lengths differ between engines and a measurement says so. `takes_token_ids`: whether a prompt may be an array of token ids.
    """

    name: str
    health_path: str
    ready_path: str
    metrics_path: str | None
    metrics: EngineMetrics
    flags: Mapping[str, Option]
    api: ApiFormat
    fixes_output_length: bool
    takes_token_ids: bool

    def image(self, version: str) -> str | None:
        """The official container image of a version, by a tag that does not move; None where there is none."""
        ...

    def version(self, environment: Path | None) -> str | None:
        """The installed engine's version; None where that cannot be known. Raises UnknownEngineError when it is not installed."""
        ...

    def prepare_commands(self, launch: Launch) -> Sequence[Sequence[str]]:
        """Command lines to run once before `serve_command`, in the same image or environment. Raises BadFlagError."""
        ...

    def serve_command(self, launch: Launch) -> Sequence[str]:
        """The command line that serves `launch` inside the engine's own image.

        Raises:
            BadFlagError: a flag, a quantization or an option that the engine does not have.
        """
        ...

    def command(self, launch: Launch) -> Sequence[str]:
        """The command line that serves `launch` on this machine. Empty where nothing is launched.

        Raises:
            BadFlagError: as `serve_command`.
            UnknownEngineError: the engine is not installed here.
        """
        ...

    def variables(self, launch: Launch) -> Mapping[str, str]:
        """Environment variables that the engine's process needs."""
        ...

    def request_model(self, launch: Launch) -> str:
        """The model's name in requests."""
        ...

    def body_fields(self) -> Mapping[str, object]:
        """Fields of a completion request that make it comparable: fixed output length, no prefix cache."""
        ...

    def read_failure(self, log_tail: str, exit_code: int) -> EngineError | None:
        """The typed reason in the last log lines of an engine that ended by itself; None when there is none to see."""
        ...
