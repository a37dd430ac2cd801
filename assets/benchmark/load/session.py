"""Putting load on one server: prompts in, decoded records out. The worker and `dyno bench` both measure through this."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from assets.benchmark.load.client import Endpoint, Exchange
from assets.benchmark.load.closed_loop import run_closed_loop, run_until_stopped
from assets.benchmark.load.completions import COMPLETIONS_PATH, Prompt, RequestRecord, completion_body, decode
from assets.benchmark.load.prompts import TextPrompts

# Two lengths make a line: tokens = overhead + tokens per word x words.
CALIBRATION_WORDS = (16, 64)
NO_USAGE = "the server does not say how many tokens a prompt has (no `usage` in its stream): give the model's tokenizer.json"


class CalibrationError(Exception):
    """Prompts cannot be sized: the server refuses them, or does not say how many tokens they have. `failure` is the failed probe's kind."""

    def __init__(self, message: str, failure: str | None) -> None:
        super().__init__(message)
        self.failure = failure


def nonce_of(*parts: object) -> int:
    """A number that stands for `parts`: what makes the prompts of one load point unlike those of any other."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big")


def never() -> bool:
    """Nobody asks to stop."""
    return False


@dataclass(slots=True)
class LoadSession:
    """A server, the model asked of it, and what each request carries beyond the standard. `should_stop` is asked 20 times a second."""

    endpoint: Endpoint
    model: str
    timeout_s: float
    body_fields: Mapping[str, object] = field(default_factory=dict)
    should_stop: Callable[[], bool] = never

    def put(
        self,
        prompts: Sequence[Prompt],
        output_tokens: int,
        concurrency: int,
        fixed_length: bool = True,
        on_done: Callable[[Exchange], None] | None = None,
    ) -> list[RequestRecord]:
        """Send all prompts in a closed loop. With `fixed_length` a shorter output is a failure. Raises StoppedError."""
        requests = [
            self.endpoint.request("POST", COMPLETIONS_PATH, completion_body(self.model, prompt, output_tokens, self.body_fields))
            for prompt in prompts
        ]
        exchanges = run_until_stopped(
            lambda: run_closed_loop(self.endpoint, requests, concurrency, self.timeout_s, on_done), self.should_stop
        )
        return [decode(exchange, output_tokens if fixed_length else None) for exchange in exchanges]

    def calibrated_prompts(self, seed: int) -> TextPrompts:
        """Text prompts sized by the server's own count of two probes. Raises CalibrationError and StoppedError."""
        probes: list[tuple[int, int]] = []
        for words in CALIBRATION_WORDS:
            [record] = self.put(TextPrompts().make(1, words, seed, nonce_of("calibration", words)), 1, 1, fixed_length=False)
            # a single token may well carry no text: its count is all that is needed here
            if record.failure not in {None, "empty_output"} or record.input_tokens is None:
                raise CalibrationError(record.detail or NO_USAGE, record.failure)
            probes.append((words, record.input_tokens))
        return TextPrompts.calibrated(probes)
