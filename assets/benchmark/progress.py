"""How the worker tells what it is doing: one JSON line an event.

Events go to `progress.jsonl` in the checkpoint folder, where whoever started the worker can follow them, and on request to standard error.
Every event has `event` and `at` (ISO 8601, UTC). The kinds and their further fields:

- `batch_started`: `partition_key`, `load_points`, `requests` (of all load points), `finished` (load points of an earlier attempt)
- `engine_starting`: `framework`, `waited_s`; `engine_started`: `framework`, `start_s`; `warmed_up`: `requests`
- `load_point_started`: `config_id`, `workload`, `concurrency`, `requests`; `requests_done`: `config_id`, `done`, `requests`
- `load_point_finished`: `config_id`, `workload`, `concurrency`, `ttft_p50_ms`, `ttft_p90_ms`, `tpot_p50_ms`, `output_tokens_per_s`,
  `failed` (requests)
- `load_point_failed`: `config_id`, `kind`, `detail`
- `note`: `text`; `failed`: `kind`, `detail`, `retryable`; `batch_finished`: `measured`, `failed`
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

PROGRESS_NAME = "progress.jsonl"
PACE_S = 0.2

_SENTENCES = {
    "batch_started": "{partition_key}: {load_points} load points to measure, {finished} finished before",
    "engine_started": "{framework} is healthy after {start_s} s",
    "warmed_up": "warmed up with {requests} requests",
    "load_point_started": "{workload} at concurrency {concurrency}: {requests} requests",
    "load_point_finished": (
        "{workload} at concurrency {concurrency}: TTFT p50 {ttft_p50_ms} ms, TPOT p50 {tpot_p50_ms} ms, "
        "{output_tokens_per_s} output tokens/s, {failed} failed"
    ),
    "load_point_failed": "{kind}: {detail}",
    "failed": "{kind}: {detail}",
    "note": "{text}",
    "batch_finished": "done: {measured} load points measured, {failed} failed",
}

Event = Mapping[str, object]
Sink = Callable[[Event], None]


class Reporter:
    """Sends each event to every sink."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = list(sinks)
        self._last = 0.0

    def add(self, sink: Sink) -> None:
        """One more sink for the events to come."""
        self._sinks.append(sink)

    def emit(self, event: str, **fields: object) -> None:
        """Report one event."""
        record = {"event": event, "at": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields}
        for sink in self._sinks:
            # a full disk or a closed pipe must not end a measurement: the checkpoints say what is finished, not the progress
            with contextlib.suppress(OSError):
                sink(record)

    def engine_starting(self, framework: str, waited_s: float) -> None:
        """Report that the engine is still starting, at the same pace."""
        if self._due():
            self.emit("engine_starting", framework=framework, waited_s=round(waited_s, 1))

    def requests_done(self, config_id: str, done: int, requests: int) -> None:
        """Report how far a load point is, a few times a second at the most, so that telling does not disturb measuring."""
        if self._due():
            self.emit("requests_done", config_id=config_id, done=done, requests=requests)

    def _due(self) -> bool:
        now = time.monotonic()
        due = now - self._last >= PACE_S
        self._last = now if due else self._last
        return due


def json_to_stderr(event: Event) -> None:
    """A sink: JSON lines on standard error."""
    _to_stderr(json.dumps(event))


def text_to_stderr(event: Event) -> None:
    """A sink: a line of text for a person on standard error."""
    sentence = describe(event)
    if sentence is not None:
        _to_stderr(sentence)


def _to_stderr(line: str) -> None:
    """Past Python's buffer: what a full disk has refused would be tried again at exit, and change the exit code."""
    os.write(sys.stderr.fileno(), f"{line}\n".encode())


def json_to_file(path: Path) -> Sink:
    """A sink: JSON lines in a file of this run only."""
    with contextlib.suppress(OSError):
        path.write_text("", encoding="utf-8")

    def sink(event: Event) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")

    return sink


class ProgressFollower:
    """Reads the events that a growing progress file has gained."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new_events(self) -> list[Event]:
        """The events since the last call; none while there is no file.

        A line that is no event, as a full disk leaves one, is passed over: the checkpoints say what is finished.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except FileNotFoundError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [event for line in whole.splitlines() if (event := _event(line)) is not None]


def _event(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def describe(event: Event) -> str | None:
    """An event as a sentence; None for those that only move a progress bar."""
    template = _SENTENCES.get(str(event["event"]))
    return None if template is None else template.format(**event)
