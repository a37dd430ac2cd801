"""What an inference engine's driver tells the worker, and how an engine can fail to start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


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


class BadFlagError(EngineError):
    """The engine does not know a flag or a value that it was given."""

    kind = "bad_flag"
    retryable = False


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


@dataclass(frozen=True, slots=True)
class Launch:
    """One engine launch: what to load, where to listen, and for how many requests of how many tokens (prompt and output) at once."""

    model_path: Path
    port: int
    parallel: int
    tokens_per_request: int
    tensor_parallel: int = 1
    flags: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    host: str = "127.0.0.1"

    @property
    def base_url(self) -> str:
        """Where the engine's HTTP API is."""
        return f"http://{self.host}:{self.port}"


class EngineDriver(Protocol):
    """How to start one engine and how to talk to it. Everything else is the same for all of them."""

    name: str
    health_path: str
    metrics_path: str | None

    def version(self) -> str:
        """The installed engine's version. Raises UnknownEngineError when it is not installed."""
        ...

    def command(self, launch: Launch) -> Sequence[str]:
        """The command line that serves `launch`. Raises BadFlagError for a flag that the driver does not know."""
        ...

    def body_fields(self) -> Mapping[str, object]:
        """Fields of a completion request that make it comparable: fixed output length, no prefix cache."""
        ...

    def read_failure(self, log_tail: str, exit_code: int) -> EngineError | None:
        """The typed reason in the last log lines of an engine that ended by itself; None when there is none to see."""
        ...
