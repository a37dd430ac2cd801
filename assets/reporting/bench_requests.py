"""Every request of a bench run, as rows of a Parquet file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = Mapping[str, Any]


# A row a request. Instants are milliseconds since the load point's start.
SCHEMA = pa.schema(
    [
        pa.field("run", pa.int32(), nullable=False),
        pa.field("index", pa.int64(), nullable=False),
        pa.field("turn", pa.int32(), nullable=False),
        *(pa.field(name, pa.float64(), nullable=False) for name in ("due_ms", "start_ms", "end_ms", "lag_ms")),
        *(
            pa.field(name, pa.float64())
            for name in ("clock_ms", "first_token_ms", "connect_ms", "receive_lag_ms", "ttft_ms", "tpot_ms", "e2e_ms")
        ),
        pa.field("token_gaps_ms", pa.list_(pa.float64()), nullable=False),
        pa.field("chunks", pa.int32(), nullable=False),
        *(pa.field(name, pa.int64()) for name in ("input_tokens", "cached_tokens", "output_tokens", "tokenizer_tokens")),
        pa.field("usage_reported", pa.bool_(), nullable=False),
        pa.field("finish_reason", pa.string()),
        pa.field("failure", pa.string()),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("in_window", pa.bool_(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Run:
    """One load point: its name, its document (docs/bench.md), and its requests as rows of SCHEMA (without `run`)."""

    label: str
    document: Mapping[str, Any]
    requests: Sequence[Row]


def write_requests(path: Path, requests: Sequence[Row | Run]) -> None:
    """The requests of one run, or all those of several, as one Parquet file; its column `run` counts the runs from 1.

    Raises:
        OSError: the file cannot be written.
        pyarrow.ArrowException: a row lacks what SCHEMA says is always known, or has it in another type.
    """
    rows: list[Row] = []
    for number, item in enumerate(requests, 1):
        rows += [{**row, "run": number} for row in item.requests] if isinstance(item, Run) else [{**item, "run": 1}]
    # pyarrow deletes what it was given the path of when it cannot write it, be it a person's older result
    with path.open("wb") as file:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), file, compression="zstd")
