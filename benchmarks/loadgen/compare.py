"""What a client reports against what the server did, request by request."""

from __future__ import annotations

import heapq
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from benchmarks.loadgen.peers import Cost, Load, Reported

Truth = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One client under one load. Errors are reported minus true TTFT in milliseconds, after the first wave of a closed loop ("steady").

    `matched_by` is `id`, or `time` where the client does not tell the server its ids: then each request is held against the one of the
    closest start and end, which flatters. All else is the server's own record: `efficiency` is the ideal over the actual time of a closed
    loop, `achieved_per_s` and `lag_p99_ms` are of the arrivals at the server of an open one.
    """

    client: str
    load: str
    requests: int
    matched_by: str
    error_mean_ms: float
    error_abs_p99_ms: float
    error_first_wave_mean_ms: float
    itl_p99_bias_ms: float | None
    efficiency: float | None
    achieved_per_s: float | None
    lag_p99_ms: float | None
    cpu_s: float
    memory_bytes_max: int


def compare(client: str, load: Load, reported: Sequence[Reported], truth: Truth, cost: Cost) -> Comparison:
    """Raises ValueError where nothing was measured."""
    asked = [request for request in truth if len(request["token_ns"]) == load.output_tokens]
    arrived = sorted(asked, key=lambda request: request["received_ns"])[-load.requests :]  # warm-up and probes came before
    by_id = {request["id"]: request for request in arrived}
    matched = [(request, by_id[request.id]) for request in reported if request.id is not None and request.id in by_id]
    matched_by = "id"
    if not matched:
        matched, matched_by = _by_time(reported, arrived), "time"
    if not matched:
        raise ValueError(f"{client} measured nothing at {load.name}")
    matched.sort(key=lambda pair: pair[1]["received_ns"])
    errors = np.asarray([mine.ttft_ms - (true["token_ns"][0] - true["received_ns"]) / 1e6 for mine, true in matched])
    wave = min(load.concurrency or 0, len(errors) // 2)
    gaps = np.concatenate([np.empty(0), *(np.asarray(mine.gaps_ms) for mine, _ in matched if mine.gaps_ms is not None)])
    true_gaps = np.concatenate([np.diff(true["token_ns"]) / 1e6 for _, true in matched])
    received_s = np.asarray([request["received_ns"] for request in arrived]) / 1e9
    return Comparison(
        client=client,
        load=load.name,
        requests=len(matched),
        matched_by=matched_by,
        error_mean_ms=float(errors[wave:].mean()),
        error_abs_p99_ms=float(np.percentile(np.abs(errors[wave:]), 99)),
        error_first_wave_mean_ms=float(errors.mean()),
        itl_p99_bias_ms=float(np.percentile(gaps, 99) - np.percentile(true_gaps, 99)) if gaps.size else None,
        efficiency=_efficiency(arrived, load.concurrency) if load.concurrency is not None else None,
        achieved_per_s=None if load.rate_per_s is None else (len(received_s) - 1) / float(received_s[-1] - received_s[0]),
        lag_p99_ms=None if load.rate_per_s is None else _lag_p99_ms(received_s, load.rate_per_s),
        cpu_s=cost.cpu_s,
        memory_bytes_max=cost.memory_bytes_max,
    )


def _by_time(reported: Sequence[Reported], arrived: Truth) -> list[tuple[Reported, Mapping[str, Any]]]:
    """Pairs with the least sum of distances between starts and between ends."""
    unix_minus_monotonic_s = time.time() - time.perf_counter()
    mine = np.asarray([(request.start_s, request.end_s) for request in reported]).reshape(-1, 2) - unix_minus_monotonic_s
    true = np.asarray([(request["received_ns"], request["token_ns"][-1]) for request in arrived]).reshape(-1, 2) / 1e9
    rows, columns = linear_sum_assignment(np.abs(mine[:, None, :] - true[None, :, :]).sum(axis=2))
    return [(reported[row], arrived[column]) for row, column in zip(rows, columns, strict=True)]


def _efficiency(arrived: Truth, concurrency: int) -> float:
    free_at = [0.0] * concurrency
    for request in arrived:
        heapq.heapreplace(free_at, free_at[0] + (request["token_ns"][-1] - request["received_ns"]) / 1e9)
    took_s = (max(request["token_ns"][-1] for request in arrived) - arrived[0]["received_ns"]) / 1e9
    return float(max(free_at) / took_s)


def _lag_p99_ms(received_s: np.typing.NDArray[np.float64], rate_per_s: float) -> float:
    """How late requests arrived, against an even schedule that begins as late as it can without one of them being early."""
    behind = received_s - np.arange(len(received_s)) / rate_per_s
    return float(np.percentile(behind - behind.min(), 99) * 1e3)
