"""What a worker has finished, in its checkpoint folder: one object a load point, whole or not there, and written once.

`<config_id>.json` holds the measurement with a SHA-256 over it; `<config_id>.<digest>.requests.jsonl.gz` the evidence, one line a request,
whose SHA-256 is in the measurement and begins with the digest in its name. The evidence is written first. The measurement is written on the
condition that there is none: of two workers with the same load point one is first, and the other reads what the first one wrote. An object
that does not agree with its checksum counts as not there: the load point is measured again, and replaces it if it is still the same one.

`<config_id>.partial.json` tells of a load point that was stopped before its end. No number is ever taken from it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import sleep
from typing import Any

from assets.benchmark.job import Measurement, Summary, TelemetrySample
from assets.benchmark.storage.protocol import CheckpointError, ObjectFolder, UnreachableError

FORMAT = 1
DIGEST_CHARACTERS = 16
# A measurement took minutes of a GPU: it is worth waiting for an object storage. Each try has the storage's own retries in it.
SAVE_PAUSES_S = (2.0, 5.0, 10.0, 20.0, 30.0)
# Each turn past the first means that somebody else wrote or removed the object in between.
SAVE_TURNS = 10
_SUMMARIES = ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms")


class CorruptCheckpointError(CheckpointError):
    """A checkpoint object is torn, or was changed."""


@dataclass(frozen=True, slots=True)
class PartialLoadPoint:
    """A load point that was under way when its worker was stopped. `at` is ISO 8601 in UTC."""

    config_id: str
    partition_key: str
    protocol: str
    repeat: int
    requests_done: int
    requests: int
    reason: str
    at: str


class CheckpointStore:
    """The checkpoint folder of one batch, protocol and repeat."""

    def __init__(self, folder: ObjectFolder) -> None:
        self._folder = folder

    @property
    def location(self) -> str:
        """The folder's path or URL."""
        return self._folder.location

    def locked(self, should_stop: Callable[[], bool] = lambda: False) -> AbstractContextManager[Callable[[], bool]]:
        """Prove that the folder can be written, and keep every other worker out. See ObjectFolder.held. Raises CheckpointError."""
        return self._folder.held(should_stop)

    def save(self, measurement: Measurement, requests: Iterable[Mapping[str, object]]) -> Measurement:
        """Store one finished load point and its requests. Raises CheckpointError.

        Returns the measurement that counts, with its `artifact` filled in: this one, or that of another worker who was first.
        """
        lines = "".join(json.dumps(request, separators=(",", ":"), allow_nan=False) + "\n" for request in requests)
        evidence = gzip.compress(lines.encode("utf-8"), mtime=0)
        digest = hashlib.sha256(evidence).hexdigest()
        name = f"{measurement.config_id}.{digest[:DIGEST_CHARACTERS]}.requests.jsonl.gz"
        complete = dataclasses.replace(measurement, artifact={"requests": name, "sha256": digest, "bytes": len(evidence)})
        for pause_s in SAVE_PAUSES_S:
            try:
                return self._saved(complete, name, evidence)
            except UnreachableError:
                sleep(pause_s)
        return self._saved(complete, name, evidence)

    def load(self, config_id: str) -> Measurement | None:
        """The finished load point; None when there is none. Raises CorruptCheckpointError, and CheckpointError when it cannot be read."""
        there = self._folder.get(_name(config_id))
        return None if there is None else self._checked(there.content, config_id)

    def finished(self, config_ids: Iterable[str]) -> tuple[dict[str, Measurement], list[str]]:
        """What is finished of `config_ids`, by id; and a sentence about each damaged object."""
        measurements: dict[str, Measurement] = {}
        damaged: list[str] = []
        for config_id in config_ids:
            try:
                measurement = self.load(config_id)
            except CorruptCheckpointError as error:
                damaged.append(str(error))
                continue
            if measurement is not None:
                measurements[config_id] = measurement
        return measurements, damaged

    def mark_partial(self, partial: PartialLoadPoint) -> None:
        """Leave a note that a load point was stopped. Where it cannot be written there is none: nothing hangs on it."""
        with contextlib.suppress(CheckpointError):
            self._folder.put(_partial_name(partial.config_id), json.dumps(dataclasses.asdict(partial)).encode("utf-8"))

    def partial(self, config_id: str) -> PartialLoadPoint | None:
        """The note of a load point that was stopped and not finished since; None where there is none. Raises CheckpointError."""
        note = self._folder.get(_partial_name(config_id))
        if note is None or self._folder.get(_name(config_id)) is not None:
            return None
        try:
            return PartialLoadPoint(**json.loads(note.content))
        except (ValueError, TypeError):
            return None

    def _saved(self, complete: Measurement, evidence_name: str, evidence: bytes) -> Measurement:
        name = _name(complete.config_id)
        document = dataclasses.asdict(complete)
        envelope = {"format": FORMAT, "sha256": _digest(document), "measurement": document}
        content = json.dumps(envelope, indent=1, allow_nan=False).encode("utf-8")
        self._folder.put(evidence_name, evidence)
        for _ in range(SAVE_TURNS):
            if self._folder.create(name, content) is not None:
                return self._finished(complete)
            there = self._folder.get(name)
            if there is None:
                continue
            try:
                first = self._checked(there.content, complete.config_id)
            except CorruptCheckpointError:
                if self._folder.replace(name, content, there.version) is not None:
                    return self._finished(complete)
                continue
            if first.artifact["requests"] != evidence_name:
                with contextlib.suppress(CheckpointError):
                    self._folder.delete(evidence_name)
            return self._finished(first)
        raise CheckpointError(f"cannot write {name} in {self.location}: others keep changing it; stop them, and start again")

    def _finished(self, measurement: Measurement) -> Measurement:
        with contextlib.suppress(CheckpointError):
            self._folder.delete(_partial_name(measurement.config_id))
        return measurement

    def _checked(self, content: bytes, config_id: str) -> Measurement:
        """The measurement in an envelope whose checksums, and those of its evidence, agree. Raises CorruptCheckpointError."""
        try:
            return self._agreeing(json.loads(content), config_id)
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptCheckpointError(
                f"{_name(config_id)} in {self.location} is damaged and its load point will be measured again: {error}"
            ) from error

    def _agreeing(self, envelope: Mapping[str, Any], config_id: str) -> Measurement:
        """Raises ValueError, KeyError or TypeError."""
        document = envelope["measurement"]
        if envelope["format"] != FORMAT or envelope["sha256"] != _digest(document):
            raise ValueError("the checksum does not agree")
        measurement = measurement_of(document)
        if measurement.config_id != config_id:
            raise ValueError("it is of another configuration")
        name = str(measurement.artifact["requests"])
        evidence = self._folder.get(name)
        if evidence is None:
            raise ValueError(f"{name} is not there")
        if hashlib.sha256(evidence.content).hexdigest() != measurement.artifact["sha256"]:
            raise ValueError(f"{name} does not agree with its checksum")
        return measurement


def measurement_of(document: Mapping[str, Any]) -> Measurement:
    """A measurement from its JSON form. Raises ValueError, KeyError or TypeError where it is none."""
    fields = dict(document)
    for name in _SUMMARIES:
        fields[name] = Summary(**fields[name])
    fields["intervals"] = {name: (float(low), float(high)) for name, (low, high) in fields["intervals"].items()}
    fields["quality_flags"] = tuple(fields["quality_flags"])
    fields["telemetry"] = tuple(TelemetrySample(**sample) for sample in fields["telemetry"])
    return Measurement(**fields)


def _name(config_id: str) -> str:
    return f"{config_id}.json"


def _partial_name(config_id: str) -> str:
    return f"{config_id}.partial.json"


def _digest(document: object) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()
