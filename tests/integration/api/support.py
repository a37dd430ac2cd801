"""A small catalog with known numbers, and the marts that dbt builds from it."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, insert, text

from assets.catalog import tables as t
from assets.rankings import dbt
from orchestration.local.postgres import EmbeddedPostgres, PostgresEndpoint

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
GIB = 1 << 30
MODELS = (
    ("qwen--qwen2.5-7b-instruct", "Qwen2.5-7B", "Qwen/Qwen2.5-7B-Instruct", "apache-2.0", 7_615_616_512),
    ("llama-3.1-8b", "Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct", "llama3.1", 8_030_261_248),
    ("dyno-82m", "dyno-82m", None, "mit", 82_000_000),
)
HARDWARE = (("h100-80gb-x4", "H100", 4, 80, 27.52, 9.1), ("l4-x1", "L4", 1, 24, 0.8048, 0.32), ("cpu", "cpu", 0, 16, 0.08925, None))
# model, quantization, hardware, engine, workload, input tokens, output tokens, [(concurrency, rps, ttft p90, tpot p90, e2e p90)]
DEPLOYMENTS: Sequence[tuple[str, str, str, str, str, int, int, list[tuple[int, float, float, float, float]]]] = (
    ("qwen--qwen2.5-7b-instruct", "fp8", "h100-80gb-x4", "vllm", "chat", 512, 32,
     [(1, 4, 20, 6, 220), (8, 30, 35, 8, 290), (64, 90, 200, 20, 840)]),
    ("llama-3.1-8b", "fp16", "h100-80gb-x4", "vllm", "chat", 512, 32, [(1, 3, 40, 9, 320), (16, 40, 90, 12, 470)]),
    ("llama-3.1-8b", "fp16", "l4-x1", "vllm", "chat", 512, 32, [(1, 0.5, 150, 55, 1900), (8, 3, 420, 70, 2600)]),
    ("dyno-82m", "q8_0", "cpu", "llama.cpp", "chat_short", 96, 32, [(1, 5, 80, 5, 240), (4, 8, 340, 9, 640)]),
)  # fmt: skip


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server that can go down and come back with its data, on the same port."""

    postgres: EmbeddedPostgres
    endpoint: PostgresEndpoint

    def kill(self) -> None:
        """End it without warning to its clients."""
        assert self.postgres.spawned is not None
        self.postgres.spawned.process.send_signal(signal.SIGQUIT)
        self.postgres.spawned.process.wait(30)

    def start(self) -> None:
        """Start it again."""
        self.postgres.start(os.environ, self.endpoint.port)


def build_marts(url: str, state_dir: Path) -> None:
    """Let dbt build the marts, which makes a new catalog version."""
    list(dbt.stream({"DYNO_DATABASE_URL": url}, state_dir, command="run"))


def id_of(*parts: object) -> str:
    return uuid.uuid5(uuid.NAMESPACE_URL, "/".join(map(str, parts))).hex


def build_catalog(url: str, state_dir: Path) -> None:
    """Create the catalog's tables in an empty database, fill them, and let dbt build the marts."""
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA IF NOT EXISTS catalog"))
        t.Base.metadata.create_all(connection)
        rows = _reference_rows() | _measurement_rows()
        for table in t.Base.metadata.sorted_tables:  # parents before children
            if table.name in rows:
                connection.execute(insert(table), rows[table.name])
    engine.dispose()
    build_marts(url, state_dir)


def _reference_rows() -> dict[str, list[dict[str, Any]]]:
    use_cases = (("chatbot", ["chat", "chat_short"], 2000.0, 100.0), ("rag", ["rag"], 2000.0, 200.0))
    return {
        t.UseCase.__tablename__: [
            {
                "use_case": name, "title": name.title(), "description": f"The use case {name}.", "workloads": workloads, "default_rps": 1.0,
                "default_input_tokens": 512, "default_output_tokens": 32, "sla_ttft_p90_ms": ttft, "sla_tpot_p90_ms": tpot,
                "sla_source": "MLPerf Inference v5.1",
            }
            for name, workloads, ttft, tpot in use_cases
        ],
        t.HardwareConfig.__tablename__: [
            {
                "hardware_id": hid, "gpu_type": gpu, "gpu_count": count, "memory_bytes_per_device": gib * GIB,
                "memory_bandwidth_bytes_per_s": 1e12, "compute_capability": None, "source": "test",
            }
            for hid, gpu, count, gib, _, _ in HARDWARE
        ],
        t.HardwarePrice.__tablename__: [
            {
                "hardware_id": hid, "provider": "aws", "region": "us-east-1", "instance": f"{hid}.test", "as_of": NOW,
                "on_demand_usd_per_hour": price, "spot_usd_per_hour": spot, "note": "", "source": "a price list",
            }
            for hid, _, _, _, price, spot in HARDWARE
        ],
        t.Model.__tablename__: [
            {
                "model_id": mid, "name": name, "hub_id": hub, "licence": licence, "architecture": "LlamaForCausalLM", "params": params,
                "active_params": params, "max_context_tokens": 8192, "facts": {"layers": 28}, "source": "test",
                "registered_at": NOW, "updated_at": NOW,
            }
            for mid, name, hub, licence, params in MODELS
        ],
        t.ModelVersion.__tablename__: [
            {
                "model_version_id": id_of(mid, quantization), "model_id": mid, "quantization": quantization, "revision": "r1",
                "weights_bytes": 1 * GIB, "files": {}, "created_at": NOW,
            }
            for mid, quantization in sorted({(d[0], d[1]) for d in DEPLOYMENTS})
        ],
        t.QualityResult.__tablename__: [
            {
                "model_version_id": id_of(mid, quantization), "task": "mmlu", "measured_at": NOW, "kind": "published",
                "accuracy": accuracy, "accuracy_stderr": 0.004, "samples": 1000, "provenance_id": "p1",
            }
            for mid, quantization, accuracy in (
                ("qwen--qwen2.5-7b-instruct", "fp8", 0.74), ("llama-3.1-8b", "fp16", 0.68), ("dyno-82m", "q8_0", 0.25)
            )
        ],
    }  # fmt: skip


def _measurement_rows() -> dict[str, list[dict[str, Any]]]:
    configs, results = [], []
    for mid, quantization, hardware, engine, workload, tokens_in, tokens_out, points in DEPLOYMENTS:
        deployment = id_of(mid, quantization, hardware, engine)
        for concurrency, rps, ttft, tpot, e2e in points:
            config = id_of(deployment, workload, concurrency)
            configs.append(
                {
                    "config_id": config, "deployment_id": deployment, "model_version_id": id_of(mid, quantization), "hardware_id": hardware,
                    "framework": engine, "framework_version": "1.0", "flags": {}, "tensor_parallel": 1, "partition_key": None,
                    "workload": workload, "input_tokens": tokens_in, "output_tokens": tokens_out, "load_mode": "closed",
                    "concurrency": concurrency, "request_rate_per_s": None, "feasible": True, "rejection_code": None,
                    "rejection_detail": None, "vram_required_bytes": 12 * GIB, "vram_available_bytes": 16 * GIB,
                    "vram_quick_estimate_bytes": 12 * GIB, "vram_parts": {"weights": 8 * GIB, "kv_cache": 4 * GIB}, "created_at": NOW,
                }
            )  # fmt: skip
            results.append(result(config, rps=rps, ttft_ms=ttft, tpot_ms=tpot, e2e_ms=e2e, output_tokens=tokens_out))
    provenance: dict[str, Any] = {
        "provenance_id": "p1", "tool": "dyno", "tool_version": "0.1.0", "source_uri": "file:results/requests.jsonl.gz",
        "file_sha256": None, "licence": None, "host": {}, "recorded_at": NOW,
    }  # fmt: skip
    return {
        t.Provenance.__tablename__: [provenance],
        t.BenchmarkConfig.__tablename__: configs,
        t.BenchmarkResult.__tablename__: results,
    }


def result(
    config_id: str, *, rps: float, ttft_ms: float, tpot_ms: float, e2e_ms: float, output_tokens: int, age_h: int = 1
) -> dict[str, Any]:
    """One measurement of a configuration whose percentiles are all alike."""
    row: dict[str, Any] = {
        f"{metric}_{stat}_ms": value
        for metric, value in (("ttft", ttft_ms), ("tpot", tpot_ms), ("itl", tpot_ms), ("e2e", e2e_ms))
        for stat in ("mean", "p50", "p90", "p95", "p99")
    }
    return row | {
        "measurement_id": uuid.uuid5(uuid.NAMESPACE_URL, f"{config_id}/{age_h}"), "measured_at": NOW - timedelta(hours=age_h),
        "config_id": config_id, "kind": "measured", "protocol": "standard", "repeat": 0, "provenance_id": "p1", "duration_s": 60.0,
        "requests_sent": 200, "requests_completed": 200, "requests_failed": 0, "failures": {}, "requests_per_s": rps,
        "output_tokens_per_s": rps * output_tokens, "total_tokens_per_s": rps * output_tokens * 2, "input_tokens_mean": 500.0,
        "output_tokens_mean": float(output_tokens), "concurrency_mean": 1.0,
        "intervals": {"e2e_p90_ms": [e2e_ms * 0.95, e2e_ms * 1.05]}, "cpu_utilization_pct": None, "engine_memory_bytes_max": None,
        "gpu_utilization_pct": None, "gpu_memory_bytes_max": None, "engine": {}, "quality_flags": [],
    }  # fmt: skip
