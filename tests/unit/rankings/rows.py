"""Load points for tests: one plain row, of which a test changes what it is about."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from assets.rankings.rows import LoadPointRow, UseCaseRow

CHATBOT = UseCaseRow(
    "chatbot",
    ("chat", "chat_short"),
    default_rps=2.0,
    default_input_tokens=512,
    default_output_tokens=256,
    sla_ttft_p90_ms=2000.0,
    sla_tpot_p90_ms=200.0,
)

_PLAIN: dict[str, Any] = {
    "config_id": "config",
    "deployment_id": "deployment",
    "model_id": "qwen--qwen2.5-7b",
    "model_name": "Qwen2.5-7B",
    "hub_id": "Qwen/Qwen2.5-7B",
    "licence": "apache-2.0",
    "params": 7_615_616_512,
    "model_version_id": "version",
    "quantization": "fp16",
    "framework": "vllm",
    "framework_version": "0.11.0",
    "hardware_id": "h100-80gb-x4",
    "gpu_type": "H100",
    "gpu_count": 4,
    "workload": "chat",
    "input_tokens": 512,
    "output_tokens": 256,
    "load_mode": "closed",
    "concurrency": 8,
    "request_rate_per_s": None,
    "kind": "measured",
    "protocol": "standard",
    "measurement_id": UUID(int=1),
    "measured_at": datetime(2026, 1, 1, tzinfo=UTC),
    "requests_completed": 100,
    "requests_failed": 0,
    "failure_rate": 0.0,
    "ttft_p50_ms": 40.0,
    "ttft_p90_ms": 60.0,
    "ttft_p99_ms": 90.0,
    "tpot_p50_ms": 8.0,
    "tpot_p90_ms": 10.0,
    "tpot_p99_ms": 15.0,
    "itl_p90_ms": 11.0,
    "e2e_p50_ms": 2000.0,
    "e2e_p90_ms": 2500.0,
    "e2e_p99_ms": 3000.0,
    "requests_per_s": 3.0,
    "output_tokens_per_s": 768.0,
    "accuracy": 0.7,
    "accuracy_stderr": 0.01,
    "on_demand_usd_per_hour": 20.0,
    "spot_usd_per_hour": 8.0,
    "price_source": "list",
    "vram_required_bytes": 40_000_000_000,
    "vram_available_bytes": 320_000_000_000,
    "vram_parts": {"weights": 15_200_000_000},
    "intervals": {},
    "quality_flags": (),
    "tool": "dyno",
    "tool_version": "0.1.0",
    "source_uri": "file:requests.jsonl.gz",
}


def load_point(**changes: Any) -> LoadPointRow:
    """The plain row with some columns changed; the deployment is named after the configuration unless it is given."""
    if "config_id" in changes:
        changes.setdefault("deployment_id", f"deployment of {changes['config_id']}")
    return LoadPointRow(**(_PLAIN | changes))
