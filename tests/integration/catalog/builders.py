"""A small model, its matrices and measurements of its configurations."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from assets.benchmark.job import Measurement, Summary, TelemetrySample
from assets.catalog.repository import Catalog
from assets.matrix.batches import batches_of
from assets.matrix.generate import Matrix, matrices_of
from assets.matrix.spec import Batch
from assets.models.facts import ModelFacts

LLAMA_8B = ModelFacts(
    model_id="llama-3.1-8b",
    name="Llama 3.1 8B",
    architecture="LlamaForCausalLM",
    params=8_030_261_248,
    active_params=8_030_261_248,
    layers=32,
    hidden_size=4096,
    intermediate_size=14336,
    attention_heads=32,
    kv_heads=8,
    head_dim=128,
    vocab_size=128_256,
    max_context_tokens=131_072,
    hub_id="meta-llama/Llama-3.1-8B",
    licence="llama3.1",
    source="test",
)
SMALL = replace(
    LLAMA_8B, model_id="dyno-82m", name="Dyno 82M", params=82_000_000, active_params=82_000_000, layers=12, hidden_size=768,
    intermediate_size=2048, attention_heads=12, kv_heads=12, head_dim=64, vocab_size=32_000, max_context_tokens=8192, hub_id=None,
    revision="a" * 64, formats=("gguf",),
)  # fmt: skip
MEASURED_AT = datetime(2026, 7, 20, 12, tzinfo=UTC)


def stored_matrix(catalog: Catalog, facts: ModelFacts = SMALL) -> tuple[tuple[Matrix, ...], tuple[Batch, ...]]:
    """Register the model and store its matrices; returns what was stored."""
    catalog.register_model(facts)
    matrices = matrices_of(facts)
    batches = batches_of(matrices)
    catalog.save_matrix(matrices, batches)
    return matrices, batches


def measurement(batch: Batch, index: int = 0, *, repeat: int = 0, at: datetime = MEASURED_AT, identity: UUID | None = None) -> Measurement:
    """A measurement of one configuration of a batch that agrees with itself (20 requests in 10 s, 0.5 s each)."""
    return Measurement(
        measurement_id=str(identity or uuid4()),
        config_id=batch.configurations[index].config_id,
        partition_key=batch.partition_key,
        protocol="demo",
        repeat=repeat,
        kind="measured",
        measured_at=at.isoformat(),
        duration_s=10.0,
        requests_sent=21,
        requests_completed=20,
        requests_failed=1,
        failures={"timeout": 1},
        ttft_ms=Summary(50.0, 40.0, 80.0, 90.0, 99.0),
        tpot_ms=Summary(10.0, 9.0, 12.0, 13.0, 14.0),
        itl_ms=Summary(10.0, 9.0, 12.0, 13.0, 14.0),
        e2e_ms=Summary(500.0, 450.0, 700.0, 800.0, 900.0),
        requests_per_s=2.0,
        output_tokens_per_s=64.0,
        total_tokens_per_s=256.0,
        input_tokens_mean=96.0,
        output_tokens_mean=32.0,
        concurrency_mean=1.0,
        intervals={"ttft_p90_ms": (70.0, 95.0)},
        cpu_utilization_pct=97.5,
        engine_memory_bytes_max=400_000_000,
        gpu_utilization_pct=None,
        gpu_memory_bytes_max=None,
        engine={"name": "llama.cpp", "version": "b9999"},
        host={"cpu_model": "Example CPU", "logical_cores": 2},
        quality_flags=("few_requests",),
        telemetry=tuple(
            TelemetrySample((at + timedelta(seconds=second)).isoformat(), device, 97.5, 400_000_000)
            for second in range(3)
            for device in ("host", "engine")
        ),
        artifact={"requests": "x.requests.jsonl.gz", "sha256": "0" * 64, "bytes": 1234},
    )
