"""Traces of real traffic to replay: when each request came, how long its prompt was and how long its answer.

Two published forms are read, told apart by their first line. Azure's LLM inference trace is a CSV with the columns TIMESTAMP, ContextTokens
and GeneratedTokens. Mooncake's is JSONL with `timestamp` (ms), `input_length`, `output_length` and `hash_ids`, a hash for each block of 512
tokens: requests with the same leading hashes have the same leading tokens.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from assets.benchmark.load.api_formats import Prompt

MOONCAKE_BLOCK_TOKENS = 512
_AZURE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


class TraceError(ValueError):
    """A trace cannot be read; the message says where and why."""


@dataclass(frozen=True, slots=True)
class TracedRequest:
    """One request of a trace; `at_s` counts from the first one. `blocks` name its prompt's leading blocks, as far as they are known."""

    at_s: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


def read_trace(path: Path, limit: int | None = None, speed: float = 1.0, max_tokens: int | None = None) -> list[TracedRequest]:
    """The first `limit` requests in the order of their instants, `speed` times as fast.

    With `max_tokens` requests whose prompt and answer are longer together are left out, before the limit. Raises TraceError.
    """
    if speed <= 0:
        raise TraceError("the speed of a trace must be positive")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            first = file.readline()
            file.seek(0)
            read = _mooncake(file) if first.lstrip().startswith("{") else _azure(file, path)
            fitting = (request for request in read if max_tokens is None or request.input_tokens + request.output_tokens <= max_tokens)
            requests = sorted(islice(fitting, limit), key=lambda request: request.at_s)
    except OSError as error:
        raise TraceError(f"cannot read the trace {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise TraceError(f"{path}: {error}") from error
    if not requests:
        raise TraceError(f"{path} has no requests{'' if max_tokens is None else f' of at most {max_tokens} tokens'}")
    start = requests[0].at_s
    return [TracedRequest((r.at_s - start) / speed, r.input_tokens, r.output_tokens, r.blocks) for r in requests]


def trace_prompts(requests: Sequence[TracedRequest], token_ids: Sequence[int], seed: int, nonce: int) -> list[Prompt]:
    """Prompts of token ids with the trace's lengths; those that share leading blocks there share them here."""
    ids = np.asarray(token_ids)
    prompts: list[Prompt] = []
    for index, request in enumerate(requests):
        known = [_random_ids(ids, MOONCAKE_BLOCK_TOKENS, (seed, nonce, 1, block)) for block in request.blocks]
        missing = max(0, request.input_tokens - MOONCAKE_BLOCK_TOKENS * len(known))
        tokens = np.concatenate([*known, _random_ids(ids, missing, (seed, nonce, 2, index))])
        prompts.append(tokens[: request.input_tokens].tolist())
    return prompts


def _random_ids(ids: np.typing.NDArray[np.int_], count: int, seeds: tuple[int, ...]) -> np.typing.NDArray[np.int_]:
    return ids[np.random.default_rng(seeds).integers(0, len(ids), size=count)]


def _azure(file: Iterable[str], path: Path) -> Iterable[TracedRequest]:
    rows = csv.DictReader(file)
    if tuple(rows.fieldnames or ()) != _AZURE_COLUMNS:
        raise TraceError(f"{path} is neither an Azure trace (CSV with {', '.join(_AZURE_COLUMNS)}) nor a Mooncake one (JSONL)")
    for row in rows:
        # seven decimals of a second are in the file, six are what datetime takes
        at = datetime.fromisoformat(row["TIMESTAMP"][:26])
        seconds = (at - datetime.min).total_seconds()  # noqa: DTZ901  # a difference of two instants of one clock
        yield TracedRequest(seconds, int(row["ContextTokens"]), int(row["GeneratedTokens"]))


def _mooncake(file: Iterable[str]) -> Iterable[TracedRequest]:
    for line in file:
        if line.strip():
            entry: dict[str, Any] = json.loads(line)
            yield TracedRequest(
                entry["timestamp"] / 1e3, int(entry["input_length"]), int(entry["output_length"]), tuple(entry.get("hash_ids", ()))
            )
