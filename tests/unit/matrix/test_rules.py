"""Each rule rejects what it should, with figures a person can check."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from assets.matrix.dimensions import cpu_hardware, load_frameworks, load_hardware, load_workloads
from assets.matrix.rules import RULES, Launch, Load, Rejection, reject_launch, reject_load
from assets.matrix.spec import LoadPoint
from assets.models.facts import QUANTIZATIONS, ModelFacts, QuantizationName
from assets.models.vram import DeploymentMemory
from tests.unit.matrix.examples import DEEPSEEK_V3, LLAMA_2_7B, LLAMA_31_8B, LOCAL_82M, QWEN_25_7B


def launch(facts: ModelFacts, quantization: QuantizationName, framework: str, hardware: str) -> Launch:
    return Launch(facts, quantization, load_frameworks()[framework], load_hardware()[hardware])


def verdict(chosen: Launch, workload: str, concurrency: int) -> Rejection | None:
    memory = DeploymentMemory(
        chosen.facts,
        QUANTIZATIONS[chosen.quantization],
        chosen.framework.memory,
        chosen.hardware.memory_bytes_per_device,
        chosen.tensor_parallel,
    )
    pattern = load_workloads()[workload]
    vram = memory.at(concurrency, pattern.input_tokens + pattern.output_tokens)
    return reject_load(Load(chosen, LoadPoint(pattern, "closed", concurrency), vram))


@pytest.mark.parametrize(
    ("chosen", "code", "says"),
    [
        (launch(replace(LLAMA_31_8B, architecture="MysteryLM"), "fp16", "vllm", "l4-x1"), "architecture_unsupported", "MysteryLM"),
        (launch(QWEN_25_7B, "q4_0", "vllm", "l4-x1"), "quantization_unsupported_by_engine", "does not run"),
        (launch(DEEPSEEK_V3, "int4", "lmdeploy", "h100-80gb-x8"), "quantization_unsupported_by_engine", "in int4"),
        (launch(LLAMA_31_8B, "fp8", "vllm", "a100-80gb-x1"), "quantization_unsupported_on_gpu", "8.9 or higher, A100-80GB has 8.0"),
        (launch(LLAMA_31_8B, "fp8", "tgi", "l4-x1"), "quantization_unsupported_on_gpu", "9.0 or higher, L4 has 8.9"),
        (launch(DEEPSEEK_V3, "fp16", "vllm", "h200-141gb-x8"), "native_precision_lower", "shipped in fp8"),
        (launch(QWEN_25_7B, "fp16", "vllm", "l4-x8"), "tp_does_not_divide_heads", "28 attention heads"),
        (
            launch(replace(LLAMA_31_8B, kv_heads=4), "fp16", "tgi", "l4-x8"),
            "tp_does_not_divide_kv_heads",
            "4 KV heads .* 8 GPUs.*tgi does not replicate",
        ),
        (launch(replace(LLAMA_31_8B, kv_heads=3), "fp16", "vllm", "l4-x4"), "tp_does_not_divide_kv_heads", "evenly"),
        (launch(QWEN_25_7B, "int4", "vllm", "l4-x8"), "tp_does_not_divide_heads", "28"),
        (launch(replace(QWEN_25_7B, attention_heads=32), "int4", "vllm", "l4-x8"), "tp_does_not_divide_int4_groups", "18944"),
    ],
)
def test_a_deployment_rule_rejects_with_its_code(chosen: Launch, code: str, says: str) -> None:
    rejection = reject_launch(chosen)
    assert rejection is not None
    assert rejection.code == code
    assert re.search(says, rejection.detail)


@pytest.mark.parametrize(
    "chosen",
    [
        launch(LLAMA_31_8B, "fp8", "vllm", "l4-x1"),
        launch(LLAMA_31_8B, "fp8", "tgi", "h100-80gb-x1"),
        launch(LLAMA_31_8B, "int8", "vllm", "a100-80gb-x1"),
        launch(replace(LLAMA_31_8B, kv_heads=4), "fp16", "vllm", "l4-x8"),  # replicated
        launch(DEEPSEEK_V3, "fp8", "vllm", "h200-141gb-x8"),
        launch(DEEPSEEK_V3, "fp8", "tgi", "h200-141gb-x8"),  # MLA: no heads to split in the cache
        launch(QWEN_25_7B, "int4", "vllm", "l4-x4"),
        launch(LOCAL_82M, "q8_0", "llama.cpp", "cpu"),
    ],
)
def test_what_runs_in_practice_is_not_rejected(chosen: Launch) -> None:
    assert reject_launch(chosen) is None


def test_memory_is_rejected_with_what_is_needed_and_what_there_is() -> None:
    rejection = verdict(launch(LLAMA_31_8B, "fp16", "vllm", "l4-x1"), "rag", 64)
    assert rejection is not None
    assert rejection.code == "vram"
    assert rejection.detail == "needs 50.4 GiB per GPU, 20.2 GiB available (90% of 22.5 GiB)"


def test_memory_of_a_machine_without_gpu() -> None:
    small = Launch(LOCAL_82M, "f16", load_frameworks()["llama.cpp"], cpu_hardware(1 << 28))
    rejection = verdict(small, "chat_short", 1)
    assert rejection is not None
    assert rejection.detail.endswith("0.2 GiB available (80% of 0.2 GiB)")
    assert "per GPU" not in rejection.detail


def test_a_context_that_is_too_short() -> None:
    rejection = verdict(launch(LLAMA_2_7B, "fp16", "vllm", "h100-80gb-x1"), "rag", 1)
    assert rejection == Rejection("context_too_short", "needs a context of 4,352 tokens, 4,096 available")


def test_more_requests_than_the_engine_is_launched_for() -> None:
    rejection = verdict(launch(LOCAL_82M, "f16", "llama.cpp", "cpu"), "chat_short", 32)
    assert rejection == Rejection("concurrency_above_limit", "32 requests at once, llama.cpp is launched for at most 16")


def test_rules_have_their_own_codes_and_a_sentence() -> None:
    assert len({rule.code for rule in RULES}) == len(RULES)
    assert all(rule.sentence.endswith(".") for rule in RULES)
