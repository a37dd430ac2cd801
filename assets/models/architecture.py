"""From a `config.json` to facts: which architectures Dyno understands, how many parameters they have, what their attention keeps.

Parameter counts are computed from the shape, tensor by tensor, as the reference implementations in Hugging Face `transformers` lay
the tensors out. Multi-token-prediction heads and quantization scales are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from assets.models.errors import InvalidModelError
from assets.models.facts import ModelFacts

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ParamCount:
    """Parameters in all, and those that work on one token: all but the experts that the router does not choose.

    Embedding and output matrices count in both, tied ones once.
    """

    total: int
    active: int


def param_count(config: Config) -> ParamCount:
    """Parameters of a model with this `config.json`.

    Raises:
        InvalidModelError: unsupported architecture, or a field is missing or no positive number.
    """
    layers = _layers_of(config)
    hidden, vocab = _count(config, "hidden_size"), _count(config, "vocab_size")
    outside = vocab * hidden * (1 if _tied(config) else 2) + hidden
    return ParamCount(outside + sum(layer.total for layer in layers), outside + sum(layer.active for layer in layers))


def facts_from_config(
    config: Config,
    *,
    model_id: str,
    name: str,
    hub_id: str | None = None,
    revision: str = "",
    licence: str | None = None,
    formats: tuple[str, ...] = ("safetensors",),
    source: str = "",
) -> ModelFacts:
    """Facts of a model with this `config.json`.

    `intermediate_size` is that of one expert where there are experts. `head_dim` of a model with latent attention is that of its values.

    Raises:
        InvalidModelError: unsupported architecture, or a field is missing or no positive number.
    """
    params = param_count(config)
    layers = _count(config, "num_hidden_layers")
    experts = _experts(config)
    latent = config.get("kv_lora_rank") is not None
    window, full_attention_layers = _sliding_window(config, layers)
    heads = _count(config, "num_attention_heads")
    return ModelFacts(
        model_id=model_id,
        name=name,
        architecture=architecture_name(config),
        params=params.total,
        active_params=params.active,
        layers=layers,
        hidden_size=_count(config, "hidden_size"),
        intermediate_size=_expert_size(config) if experts else _count(config, "intermediate_size"),
        attention_heads=heads,
        kv_heads=heads if latent else _kv_heads(config),
        head_dim=_count(config, "v_head_dim") if latent else _head_dim(config),
        vocab_size=_count(config, "vocab_size"),
        max_context_tokens=_count(config, "max_position_embeddings"),
        hub_id=hub_id,
        revision=revision,
        licence=licence,
        native_dtype=_native_dtype(config),
        tie_word_embeddings=_tied(config),
        sliding_window_tokens=window,
        full_attention_layers=full_attention_layers,
        kv_lora_rank=_count(config, "kv_lora_rank") if latent else None,
        qk_rope_head_dim=_count(config, "qk_rope_head_dim") if latent else None,
        experts=experts,
        experts_per_token=_count(config, "num_experts_per_tok") if experts else None,
        formats=formats,
        source=source,
    )


def architecture_name(config: Config) -> str:
    """The first entry of `architectures`, which must be one that Dyno understands.

    Raises:
        InvalidModelError: it is missing or unsupported; the message lists those that are supported.
    """
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if name is None:
        raise InvalidModelError("config.json lacks `architectures`, so Dyno cannot tell what the model is made of")
    if name not in _LAYERS:
        raise InvalidModelError(f"architecture {name} is not supported: Dyno understands {', '.join(sorted(_LAYERS))}")
    return str(name)


def _layers_of(config: Config) -> list[ParamCount]:
    make = _LAYERS[architecture_name(config)]
    return [make(config, index) for index in range(_count(config, "num_hidden_layers"))]


def _count(config: Config, field: str) -> int:
    value = config.get(field)
    if value is None:
        raise InvalidModelError(f"config.json lacks `{field}`")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0 or value != int(value):
        raise InvalidModelError(f"`{field}` in config.json is {value!r}: expected a positive whole number")
    return int(value)


def _head_dim(config: Config) -> int:
    if config.get("head_dim") is not None:
        return _count(config, "head_dim")
    hidden, heads = _count(config, "hidden_size"), _count(config, "num_attention_heads")
    if hidden % heads:
        raise InvalidModelError(f"hidden_size {hidden} in config.json is no multiple of num_attention_heads {heads}")
    return hidden // heads


def _kv_heads(config: Config) -> int:
    given = config.get("num_key_value_heads") is not None
    heads, kv_heads = _count(config, "num_attention_heads"), _count(config, "num_key_value_heads" if given else "num_attention_heads")
    if heads % kv_heads:
        raise InvalidModelError(f"num_attention_heads {heads} in config.json is no multiple of num_key_value_heads {kv_heads}")
    return kv_heads


def _tied(config: Config) -> bool:
    return bool(config.get("tie_word_embeddings", False))


def _experts(config: Config) -> int | None:
    for field in ("num_local_experts", "num_experts", "n_routed_experts"):
        if config.get(field):
            return _count(config, field)
    return None


def _expert_size(config: Config) -> int:
    return _count(config, "moe_intermediate_size" if config.get("moe_intermediate_size") else "intermediate_size")


def _native_dtype(config: Config) -> str:
    method = (config.get("quantization_config") or {}).get("quant_method")
    return str(method or config.get("torch_dtype") or config.get("dtype") or "bfloat16")


def _sliding_window(config: Config, layers: int) -> tuple[int | None, int | None]:
    """(window in tokens, number of layers that attend to everything), both None where no layer has a window."""
    window = config.get("sliding_window")
    if not window or config.get("use_sliding_window") is False:
        return None, None
    kinds = config.get("layer_types")
    if isinstance(kinds, list):
        full: int | None = sum(kind == "full_attention" for kind in kinds)
    else:
        full = layers // _count(config, "sliding_window_pattern") if config.get("sliding_window_pattern") else None
    if full == layers:
        return None, None
    return _count(config, "sliding_window"), full


def _attention(config: Config, *, qkv_bias: bool, output_bias: bool, head_norms: bool = False) -> int:
    hidden, dim = _count(config, "hidden_size"), _head_dim(config)
    queries, keys = _count(config, "num_attention_heads") * dim, _kv_heads(config) * dim
    matrices = hidden * queries + 2 * hidden * keys + queries * hidden
    biases = (queries + 2 * keys if qkv_bias else 0) + (hidden if output_bias else 0)
    return matrices + biases + (2 * dim if head_norms else 0)


def _dense(params: int) -> ParamCount:
    return ParamCount(params, params)


def _mlp(config: Config, inner: int) -> int:
    hidden = _count(config, "hidden_size")
    return 3 * hidden * inner + (2 * inner + hidden if config.get("mlp_bias") else 0)


def _norms(config: Config) -> int:
    return 2 * _count(config, "hidden_size")


def _mixture(common: int, experts: int, chosen: int, expert: int) -> ParamCount:
    return ParamCount(common + experts * expert, common + chosen * expert)


def _llama_layer(config: Config, _: int) -> ParamCount:
    bias = bool(config.get("attention_bias"))
    attention = _attention(config, qkv_bias=bias, output_bias=bias)
    return _dense(attention + _mlp(config, _count(config, "intermediate_size")) + _norms(config))


def _qwen2_layer(config: Config, _: int) -> ParamCount:
    attention = _attention(config, qkv_bias=True, output_bias=False)
    return _dense(attention + _mlp(config, _count(config, "intermediate_size")) + _norms(config))


def _qwen3_layer(config: Config, _: int) -> ParamCount:
    bias = bool(config.get("attention_bias"))
    attention = _attention(config, qkv_bias=bias, output_bias=bias, head_norms=True)
    return _dense(attention + _mlp(config, _count(config, "intermediate_size")) + _norms(config))


def _qwen3_moe_layer(config: Config, index: int) -> ParamCount:
    step = int(config.get("decoder_sparse_step") or 1)
    if index in (config.get("mlp_only_layers") or []) or (index + 1) % step:
        return _qwen3_layer(config, index)
    bias = bool(config.get("attention_bias"))
    experts = _count(config, "num_experts")
    common = _attention(config, qkv_bias=bias, output_bias=bias, head_norms=True) + _norms(config) + _count(config, "hidden_size") * experts
    expert = 3 * _count(config, "hidden_size") * _expert_size(config)
    return _mixture(common, experts, _count(config, "num_experts_per_tok"), expert)


def _mixtral_layer(config: Config, _: int) -> ParamCount:
    hidden, experts = _count(config, "hidden_size"), _count(config, "num_local_experts")
    common = _attention(config, qkv_bias=False, output_bias=False) + _norms(config) + hidden * experts
    return _mixture(common, experts, _count(config, "num_experts_per_tok"), 3 * hidden * _count(config, "intermediate_size"))


def _gpt_oss_layer(config: Config, _: int) -> ParamCount:
    hidden, inner = _count(config, "hidden_size"), _count(config, "intermediate_size")
    experts, sinks = _count(config, "num_local_experts"), _count(config, "num_attention_heads")
    router = (hidden + 1) * experts
    common = _attention(config, qkv_bias=True, output_bias=True) + sinks + _norms(config) + router
    expert = hidden * 2 * inner + 2 * inner + inner * hidden + hidden
    return _mixture(common, experts, _count(config, "num_experts_per_tok"), expert)


def _deepseek_layer(config: Config, index: int) -> ParamCount:
    """Multi-head latent attention and shared experts (DeepSeek-V3 technical report, arXiv:2412.19437, sections 2.1 and 4.2)."""
    hidden, heads = _count(config, "hidden_size"), _count(config, "num_attention_heads")
    nope, rope, values = (_count(config, field) for field in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    rank = _count(config, "kv_lora_rank")
    if config.get("q_lora_rank"):
        query_rank = _count(config, "q_lora_rank")
        queries = hidden * query_rank + query_rank + query_rank * heads * (nope + rope)
    else:
        queries = hidden * heads * (nope + rope)
    keys = hidden * (rank + rope) + rank + rank * heads * (nope + values)
    common = queries + keys + heads * values * hidden + _norms(config)
    if index < int(config.get("first_k_dense_replace") or 0):
        return _dense(common + 3 * hidden * _count(config, "intermediate_size"))
    experts = _count(config, "n_routed_experts")
    expert = 3 * hidden * _expert_size(config)
    correction = experts if config.get("topk_method", "noaux_tc") == "noaux_tc" else 0
    common += int(config.get("n_shared_experts") or 0) * expert + hidden * experts + correction
    return _mixture(common, experts, _count(config, "num_experts_per_tok"), expert)


_LAYERS: dict[str, Callable[[Config, int], ParamCount]] = {
    "LlamaForCausalLM": _llama_layer,
    "MistralForCausalLM": _llama_layer,
    "Qwen2ForCausalLM": _qwen2_layer,
    "Qwen3ForCausalLM": _qwen3_layer,
    "Qwen3MoeForCausalLM": _qwen3_moe_layer,
    "MixtralForCausalLM": _mixtral_layer,
    "GptOssForCausalLM": _gpt_oss_layer,
    "DeepseekV2ForCausalLM": _deepseek_layer,
    "DeepseekV3ForCausalLM": _deepseek_layer,
}
