"""Memory by architecture against published worked examples and engines' own logs. GiB = 2^30 bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.models.facts import QUANTIZATIONS, ModelFacts
from assets.models.vram import (
    DeploymentMemory,
    EngineMemory,
    activations_bytes,
    kv_cache_bytes,
    kv_cache_bytes_per_token,
    quick_vram_bytes,
    weights_bytes,
)

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
FP16, FP8, INT4 = QUANTIZATIONS["fp16"], QUANTIZATIONS["fp8"], QUANTIZATIONS["int4"]

LLAMA_31_8B = ModelFacts(
    "llama-3.1-8b", "Llama 3.1 8B", "LlamaForCausalLM", 8_030_261_248, 8_030_261_248, 32, 4096, 14336, 32, 8, 128, 128_256, 131_072
)
LLAMA_31_70B = ModelFacts(
    "llama-3.1-70b", "Llama 3.1 70B", "LlamaForCausalLM", 70_553_706_496, 70_553_706_496, 80, 8192, 28672, 64, 8, 128, 128_256, 131_072
)
LLAMA_2_7B = ModelFacts(
    "llama-2-7b", "Llama 2 7B", "LlamaForCausalLM", 6_738_415_616, 6_738_415_616, 32, 4096, 11008, 32, 32, 128, 32_000, 4096
)
QWEN_25_15B = ModelFacts(
    "qwen2.5-1.5b",
    "Qwen2.5 1.5B",
    "Qwen2ForCausalLM",
    1_543_714_304,
    1_543_714_304,
    28,
    1536,
    8960,
    12,
    2,
    128,
    151_936,
    32_768,
    tie_word_embeddings=True,
)
DEEPSEEK_V3 = ModelFacts(
    "deepseek-v3",
    "DeepSeek V3",
    "DeepseekV3ForCausalLM",
    671_026_419_200,
    37_000_000_000,
    61,
    7168,
    2048,
    128,
    128,
    128,
    129_280,
    163_840,
    native_dtype="fp8",
    kv_lora_rank=512,
    qk_rope_head_dim=64,
    experts=256,
    experts_per_token=8,
)
# vLLM as it was launched for the logs below: graphs were captured after the cache had been sized.
VLLM_LOGGED = EngineMemory("transformer", 0.9, round(0.12 * GIB), 0, prefill_tokens=8192, max_sequences=256)
LLAMA_CPP = EngineMemory("ggml", 0.8, 0, 0, prefill_tokens=2048, max_sequences=16, quantizes_embeddings=True)


@pytest.mark.parametrize(
    ("facts", "expected_bytes"),
    [
        # https://bhabishya.rbind.io/posts/vllm-and-lmcache: 2 x 32 x 8 x 128 x 2 = 131,072 bytes
        pytest.param(LLAMA_31_8B, 128 * KIB, id="grouped-query attention: Llama 3.1 8B"),
        # every head its own keys and values: 2 x 32 x 32 x 128 x 2 = 524,288 bytes
        pytest.param(LLAMA_2_7B, 512 * KIB, id="multi-head attention: Llama 2 7B"),
        pytest.param(LLAMA_31_70B, 320 * KIB, id="grouped-query attention: Llama 3.1 70B"),
        # arXiv:2412.19437 and arXiv:2505.09343 table 1: DeepSeek-V3 70.272 KB per token
        pytest.param(DEEPSEEK_V3, 70_272, id="latent attention: DeepSeek V3"),
    ],
)
def test_kv_cache_of_one_token(facts: ModelFacts, expected_bytes: int) -> None:
    assert kv_cache_bytes_per_token(facts) == expected_bytes


@pytest.mark.parametrize(
    ("facts", "tensor_parallel", "expected_bytes"),
    [
        (LLAMA_31_70B, 4, 80 * KIB),
        (LLAMA_31_70B, 8, 40 * KIB),
        (LLAMA_31_70B, 16, 40 * KIB),  # 8 KV heads on 16 devices: each keeps one
        (DEEPSEEK_V3, 8, 70_272),  # the latent is whole on every device
    ],
)
def test_kv_cache_is_split_as_far_as_there_are_heads(facts: ModelFacts, tensor_parallel: int, expected_bytes: int) -> None:
    assert kv_cache_bytes_per_token(facts, tensor_parallel) == expected_bytes


def test_kv_cache_comes_in_whole_blocks() -> None:
    assert kv_cache_bytes(LLAMA_31_8B, 3, 17) == 3 * 32 * 128 * KIB


def test_sliding_window_bounds_the_cache_of_its_layers_only() -> None:
    windowed = replace(LLAMA_31_8B, sliding_window_tokens=1024, full_attention_layers=8)
    per_layer = 128 * KIB // 32
    assert kv_cache_bytes(windowed, 1, 8192) == per_layer * (8 * 8192 + 24 * (1024 + 16))
    assert kv_cache_bytes(windowed, 1, 512) == kv_cache_bytes(LLAMA_31_8B, 1, 512)


def test_weights_of_the_unquantized_model_are_all_its_parameters() -> None:
    # 8.03 billion parameters at 2 bytes: 16.06 GB, as on the hub
    assert weights_bytes(LLAMA_31_8B, FP16) == pytest.approx(16.06e9, rel=1e-3)
    # vLLM: "Loading model weights took 14.9888 GB" (GiB)
    assert weights_bytes(LLAMA_31_8B, FP16) / GIB == pytest.approx(14.9888, rel=5e-3)
    # a tied output head is the embedding; vLLM: "Loading model weights took 2.8875 GB"
    assert weights_bytes(QWEN_25_15B, FP16) / GIB == pytest.approx(2.8875, rel=5e-3)


def test_weights_of_quantized_models_match_published_checkpoints() -> None:
    # hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4: 5.73 GB on the hub; embeddings and head in 16 bits
    assert weights_bytes(LLAMA_31_8B, INT4) == pytest.approx(5.73e9, rel=0.01)
    # neuralmagic/Meta-Llama-3.1-8B-Instruct-FP8: 9.08 GB
    assert weights_bytes(LLAMA_31_8B, FP8) == pytest.approx(9.08e9, rel=0.01)


def test_weights_split_over_devices_with_what_each_must_keep() -> None:
    four = weights_bytes(LLAMA_31_8B, FP16, 4)
    norms = 65 * 4096 * 2
    assert four * 4 == pytest.approx(weights_bytes(LLAMA_31_8B, FP16) + 3 * norms, abs=4)
    sixteen = weights_bytes(LLAMA_31_8B, FP16, 16)
    kv_projections = 2 * 32 * 4096 * 8 * 128 * 2
    assert sixteen * 16 == pytest.approx(weights_bytes(LLAMA_31_8B, FP16) + 15 * norms + kv_projections, abs=32)


def test_gguf_quantizes_embeddings_too() -> None:
    q8 = QUANTIZATIONS["q8_0"]
    assert weights_bytes(LLAMA_31_8B, q8, quantizes_embeddings=True) == pytest.approx(8.54e9, rel=1e-3)  # llama.cpp: 8.54 GB


@pytest.mark.parametrize(("facts", "logged_mib"), [(LLAMA_31_8B, 258.50), (LLAMA_2_7B, 70.50)])
def test_llama_cpp_compute_buffer(facts: ModelFacts, logged_mib: float) -> None:
    """llama.cpp: "CPU compute buffer size = 258.50 MiB" for Llama 3 8B, 70.50 MiB for Llama 2 7B."""
    assert activations_bytes(facts, LLAMA_CPP) == logged_mib * MIB


@pytest.mark.parametrize(
    ("facts", "tokens", "logged_gib"),
    [
        (LLAMA_31_8B, 2048, 0.22),  # "PyTorch activation peak memory takes 0.22GiB", chunks of 2,048 tokens
        (QWEN_25_15B, 32_768, 2.02),  # 2.02GiB, one pass of 32,768 tokens
    ],
)
def test_prefill_activations_against_vllm_logs(facts: ModelFacts, tokens: int, logged_gib: float) -> None:
    memory = replace(VLLM_LOGGED, prefill_tokens=tokens, max_sequences=1)
    assert activations_bytes(facts, memory) / GIB == pytest.approx(logged_gib, rel=0.12)


@pytest.mark.parametrize(
    ("device_gib", "prefill_tokens", "logged_tokens"),
    [
        # "total_gpu_memory (79.14GiB) x gpu_memory_utilization (0.90) = 71.22GiB", "reserved for KV Cache is 54.93GiB"
        (79.14, 8192, 54.93 * GIB / (128 * KIB)),
        # "total_gpu_memory (22.07GiB) x ... (0.90) = 19.86GiB", "# CUDA blocks: 2356" of 16 tokens
        (22.07, 2048, 2356 * 16),
    ],
)
def test_kv_capacity_of_llama_8b_against_vllm_logs(device_gib: float, prefill_tokens: int, logged_tokens: float) -> None:
    memory = replace(VLLM_LOGGED, prefill_tokens=prefill_tokens, max_sequences=1)
    deployment = DeploymentMemory(LLAMA_31_8B, FP16, memory, round(device_gib * GIB))
    assert deployment.kv_capacity_tokens == pytest.approx(logged_tokens, rel=0.015)


def test_capacity_and_fit_agree() -> None:
    """A load that is exactly the capacity fits; one block more does not."""
    for share in (None, 0.8):
        deployment = DeploymentMemory(LLAMA_31_8B, FP16, replace(VLLM_LOGGED, kv_share_of_free=share), 80 * GIB)
        whole_blocks = deployment.kv_capacity_tokens // 16 * 16
        assert deployment.at(1, whole_blocks).fits
        assert not deployment.at(1, whole_blocks + 16).fits


def test_quick_estimate_is_the_documented_formula() -> None:
    assert quick_vram_bytes(8_000_000_000, 16) == 19_200_000_000
    assert quick_vram_bytes(70_000_000_000, 4) == 42_000_000_000


facts_strategy = st.builds(
    lambda layers, heads, groups, head_dim, vocab, tied: ModelFacts(
        "m",
        "m",
        "LlamaForCausalLM",
        layers * 12 * (heads * head_dim) ** 2 + 2 * vocab * heads * head_dim,
        1,
        layers,
        heads * head_dim,
        4 * heads * head_dim,
        heads,
        max(1, heads // groups),
        head_dim,
        vocab,
        32_768,
        tie_word_embeddings=tied,
    ),
    st.integers(1, 80),
    st.sampled_from([8, 16, 32, 64]),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([64, 128]),
    st.integers(1000, 200_000),
    st.booleans(),
)


@settings(max_examples=60)
@given(facts_strategy, st.sampled_from([1, 2, 4, 8]), st.integers(1, 512), st.integers(1, 8192), st.sampled_from([None, 0.8]))
def test_parts_add_up_and_grow_with_the_load(facts: ModelFacts, tp: int, sequences: int, tokens: int, share: float | None) -> None:
    deployment = DeploymentMemory(facts, FP16, replace(VLLM_LOGGED, kv_share_of_free=share), 80 * GIB, tp)
    estimate = deployment.at(sequences, tokens)
    parts = estimate.parts
    names = ("weights_bytes", "kv_cache_bytes", "activations_bytes", "engine_overhead_bytes", "reserved_bytes")
    assert sum(parts[name] for name in names) == parts["required_bytes_per_device"] == estimate.required_bytes_per_device
    assert all(parts[name] >= 0 for name in names)
    assert estimate.required_bytes == estimate.required_bytes_per_device * tp
    assert deployment.at(sequences + 1, tokens).required_bytes_per_device >= estimate.required_bytes_per_device
    assert deployment.at(sequences, tokens + 1).required_bytes_per_device >= estimate.required_bytes_per_device


@settings(max_examples=60)
@given(facts_strategy, st.sampled_from([2, 4, 8]))
def test_more_devices_never_need_more_weights_each(facts: ModelFacts, tp: int) -> None:
    assert weights_bytes(facts, FP16, tp) <= weights_bytes(facts, FP16, tp // 2)
    assert weights_bytes(facts, FP16, tp) * tp >= weights_bytes(facts, FP16)
