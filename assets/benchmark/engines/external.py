"""Any OpenAI-compatible server that somebody else runs: nothing is launched, and nothing is known of it but its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from assets.benchmark.engines.protocol import EngineError, Launch, Option
from assets.benchmark.load.api_formats import COMPLETIONS
from assets.benchmark.load.server_counters import EngineMetrics


class External:
    """A server at a URL. `metrics` reads the page of any engine that Dyno knows: it may be one of them."""

    name = "external"
    # Any answer but a server's error will do: some have no such path, some ask for a key. /v1/models is no better: without a hub cache
    # transformers serve answers it with 500.
    health_path = "/health"
    ready_path = "/health"
    metrics_path: str | None = "/metrics"
    api = COMPLETIONS
    # tried first: a server that refuses the field is measured without it
    fixes_output_length = True
    takes_token_ids = False
    flags: Mapping[str, Option] = {}

    def __init__(self, metrics: EngineMetrics) -> None:
        self.metrics = metrics

    def image(self, version: str) -> str | None:
        """None."""
        return None

    def version(self, environment: Path | None) -> str | None:
        """Not known."""
        return None

    def prepare_commands(self, launch: Launch) -> Sequence[Sequence[str]]:
        """None."""
        return ()

    def serve_command(self, launch: Launch) -> Sequence[str]:
        """Empty: nothing is launched."""
        return ()

    def command(self, launch: Launch) -> Sequence[str]:
        """Empty: nothing is launched."""
        return ()

    def variables(self, launch: Launch) -> Mapping[str, str]:
        """None."""
        return {}

    def request_model(self, launch: Launch) -> str:
        """The name that the job gives."""
        return launch.served_model_name

    def body_fields(self) -> Mapping[str, object]:
        """What most servers know."""
        return COMPLETIONS.fixed_length

    def read_failure(self, log_tail: str, exit_code: int) -> EngineError | None:
        """None: there is no log."""
        return None
