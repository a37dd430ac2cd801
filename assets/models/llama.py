"""The Llama family as llama.cpp reads it: shape, tensor names in both layouts, rotary embedding.

Llama, Mistral, Qwen2 and Qwen3 (dense) differ in biases, in norms of queries and keys, and in how the rotary embedding pairs the
dimensions of a head: llama.cpp's `llama` architecture pairs neighbours, Hugging Face's layout pairs the two halves of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

GgufArchitecture = Literal["llama", "qwen2", "qwen3"]
RopeKind = Literal["linear", "yarn", "llama3"]
Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How the rotary embedding is stretched. `kind` is `linear`, `yarn` or `llama3`."""

    kind: RopeKind
    factor: float
    original_context: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0


@dataclass(frozen=True, slots=True)
class LlamaSpec:
    """Shape of a dense Llama-family model. Sizes are counts; `context` is in tokens."""

    name: str
    architecture: GgufArchitecture
    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    context: int
    rope_theta: float = 10_000.0
    rms_eps: float = 1e-5
    tied: bool = False
    attention_bias: bool = False
    rope_scaling: RopeScaling | None = None
    licence: str | None = None


@dataclass(frozen=True, slots=True)
class TensorSource:
    """One tensor of a GGUF file: its name and shape are known before its numbers are made or read."""

    name: str
    shape: tuple[int, ...]
    load: Callable[[], Array]


def hf_tensor_shapes(spec: LlamaSpec) -> dict[str, tuple[int, ...]]:
    """Every tensor by its Hugging Face name, with its shape (rows, columns)."""
    hidden, inner = spec.hidden_size, spec.intermediate_size
    queries, keys = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (spec.vocab_size, hidden)}
    for layer in range(spec.layers):
        prefix = f"model.layers.{layer}."
        shapes[f"{prefix}input_layernorm.weight"] = (hidden,)
        for name, rows in (("q", queries), ("k", keys), ("v", keys)):
            shapes[f"{prefix}self_attn.{name}_proj.weight"] = (rows, hidden)
            if spec.attention_bias:
                shapes[f"{prefix}self_attn.{name}_proj.bias"] = (rows,)
        shapes[f"{prefix}self_attn.o_proj.weight"] = (hidden, queries)
        if spec.architecture == "qwen3":
            shapes[f"{prefix}self_attn.q_norm.weight"] = (spec.head_dim,)
            shapes[f"{prefix}self_attn.k_norm.weight"] = (spec.head_dim,)
        shapes[f"{prefix}post_attention_layernorm.weight"] = (hidden,)
        shapes[f"{prefix}mlp.gate_proj.weight"] = (inner, hidden)
        shapes[f"{prefix}mlp.up_proj.weight"] = (inner, hidden)
        shapes[f"{prefix}mlp.down_proj.weight"] = (hidden, inner)
    shapes["model.norm.weight"] = (hidden,)
    if not spec.tied:
        shapes["lm_head.weight"] = (spec.vocab_size, hidden)
    return shapes


_GGUF_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_GGUF_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(hf_name: str) -> str:
    """llama.cpp's name of a tensor, for example `blk.3.attn_q.weight`."""
    if hf_name in _GGUF_NAMES:
        return _GGUF_NAMES[hf_name]
    _, _, layer, rest = hf_name.split(".", 3)
    module, _, kind = rest.rpartition(".")
    return f"blk.{layer}.{_GGUF_LAYER_NAMES[module]}.{kind}"


def permute_rotary(rows: Array, heads: int) -> Array:
    """Reorder the rows of a query or key projection from half-and-half pairs to neighbouring pairs (llama.cpp's `llama`)."""
    head_dim = rows.shape[0] // heads
    return rows.reshape(heads, 2, head_dim // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def gguf_tensors(spec: LlamaSpec, read: Callable[[str], Array]) -> Iterator[TensorSource]:
    """The tensors of a GGUF file in the order in which to write them; `read` gives one by its Hugging Face name."""
    if spec.rope_scaling is not None and spec.rope_scaling.kind == "llama3":
        factors = llama3_rope_factors(spec.rope_theta, spec.head_dim, spec.rope_scaling)
        yield TensorSource("rope_freqs.weight", factors.shape, lambda: factors)
    for name, shape in hf_tensor_shapes(spec).items():
        yield TensorSource(gguf_name(name), shape, _loader(spec, read, name))


def _loader(spec: LlamaSpec, read: Callable[[str], Array], name: str) -> Callable[[], Array]:
    heads = {"q_proj": spec.heads, "k_proj": spec.kv_heads}.get(name.split(".")[-2])
    if heads is None or spec.architecture != "llama":
        return lambda: read(name)
    return lambda: permute_rotary(read(name), heads)


def llama3_rope_factors(theta: float, head_dim: int, scaling: RopeScaling) -> Array:
    """Divisors of the rotary frequencies of Llama 3.1, one per pair of dimensions.

    Long wavelengths are divided by `factor`, short ones are kept, those between are interpolated (Llama 3.1 reference
    implementation, `apply_scaling`; llama.cpp reads the result as the tensor `rope_freqs.weight`).
    """
    low_wavelength = scaling.original_context / scaling.low_freq_factor
    high_wavelength = scaling.original_context / scaling.high_freq_factor
    factors = np.ones(head_dim // 2, dtype=np.float32)
    for index in range(head_dim // 2):
        wavelength = 2 * math.pi * theta ** (2 * index / head_dim)
        if wavelength > low_wavelength:
            factors[index] = scaling.factor
        elif wavelength >= high_wavelength:
            smooth = (scaling.original_context / wavelength - scaling.low_freq_factor) / (
                scaling.high_freq_factor - scaling.low_freq_factor
            )
            factors[index] = 1 / ((1 - smooth) / scaling.factor + smooth)
    return factors
