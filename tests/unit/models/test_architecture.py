"""Parameters counted from a config.json, against the totals that the authors and the hub publish."""

from __future__ import annotations

from typing import Any

import pytest

from assets.models.architecture import facts_from_config, param_count
from assets.models.errors import InvalidModelError
from assets.models.registry import model_facts

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
}


@pytest.mark.parametrize(
    ("model_id", "published"),
    [
        # "Safetensors: model size" of each repository on the Hugging Face hub, to the last parameter
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.1-70b", 70_553_706_496),
        ("llama-3.1-405b", 405_853_388_800),
        ("qwen2.5-7b", 7_615_616_512),
        ("qwen3-8b", 8_190_735_360),
        ("qwen3-32b", 32_762_123_264),
        ("mistral-7b-v0.3", 7_248_023_552),
        ("mixtral-8x7b", 46_702_792_704),
    ],
)
def test_the_shape_gives_the_published_number_of_parameters(model_id: str, published: int) -> None:
    """One forgotten bias or norm would show."""
    assert model_facts(model_id).params == published


@pytest.mark.parametrize(
    ("model_id", "total_billion", "active_billion", "embedding_counted"),
    [
        ("mixtral-8x7b", 46.7, 12.9, True),  # Mixtral of Experts, arXiv:2401.04088
        ("deepseek-r1", 671.0, 37.6, True),  # DeepSeek-V3 technical report, arXiv:2412.19437: 671B, "37B activated"
        ("gpt-oss-20b", 20.91, 3.61, False),  # gpt-oss model card, arXiv:2508.10925, table 1
        ("gpt-oss-120b", 116.83, 5.13, False),
    ],
)
def test_experts_count_in_all_and_those_that_work(
    model_id: str, total_billion: float, active_billion: float, embedding_counted: bool
) -> None:
    """As the papers round them; the gpt-oss card leaves the embedding out of the active ones, as its text says."""
    facts = model_facts(model_id)
    active = facts.active_params - (0 if embedding_counted else facts.vocab_size * facts.hidden_size)
    assert facts.params == pytest.approx(total_billion * 1e9, rel=2e-3)
    assert active == pytest.approx(active_billion * 1e9, rel=5e-3)


def test_latent_attention_keeps_one_compressed_vector_a_token() -> None:
    """DeepSeek's KV cache is the latent of 512 and the rotary key of 64 values, not keys and values by head."""
    facts = model_facts("deepseek-r1")
    assert (facts.kv_lora_rank, facts.qk_rope_head_dim, facts.kv_heads) == (512, 64, 128)


def test_tied_embeddings_are_counted_once() -> None:
    """1,000 tokens of 64 values."""
    assert param_count(LLAMA).total - param_count(LLAMA | {"tie_word_embeddings": True}).total == 64_000


def test_biases_are_counted_where_the_config_has_them() -> None:
    """Attention: 64 + 2 x 32 for queries, keys and values, 64 for the output; feed-forward: 2 x 128 + 64; two layers."""
    assert param_count(LLAMA | {"attention_bias": True}).total - param_count(LLAMA).total == 2 * (64 + 2 * 32 + 64)
    assert param_count(LLAMA | {"mlp_bias": True}).total - param_count(LLAMA).total == 2 * (2 * 128 + 64)


@pytest.mark.parametrize(
    ("changes", "window", "full_layers"),
    [
        ({"sliding_window": 4096}, 4096, 0),
        ({"sliding_window": 4096, "use_sliding_window": False}, None, None),
        ({"sliding_window": 128, "layer_types": ["sliding_attention", "full_attention"]}, 128, 1),
        ({"sliding_window": 128, "layer_types": ["full_attention", "full_attention"]}, None, None),
        ({"sliding_window": None}, None, None),
    ],
)
def test_sliding_windows(changes: dict[str, Any], window: int | None, full_layers: int | None) -> None:
    """A window limits the KV cache, in the layers that have it."""
    facts = facts_from_config(LLAMA | changes, model_id="m", name="m")
    assert facts.sliding_window_tokens == window
    assert (facts.full_attention_layers or 0) == (full_layers or 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "MambaForCausalLM is not supported: Dyno understands"),
        ({"architectures": None}, "lacks `architectures`"),
        ({"hidden_size": None}, "lacks `hidden_size`"),
        ({"hidden_size": -64}, "expected a positive whole number"),
        ({"hidden_size": True}, "expected a positive whole number"),
        ({"num_hidden_layers": 2.5}, "expected a positive whole number"),
        ({"vocab_size": "1000"}, "expected a positive whole number"),
        ({"num_key_value_heads": 3}, "no multiple of num_key_value_heads 3"),
        ({"num_attention_heads": 5, "num_key_value_heads": 5}, "no multiple of num_attention_heads 5"),
    ],
)
def test_a_config_that_makes_no_model_is_refused_by_field(changes: dict[str, Any], message: str) -> None:
    """Hub repositories hold anything; the message names what to look at."""
    with pytest.raises(InvalidModelError, match=message):
        facts_from_config(LLAMA | changes, model_id="m", name="m")
