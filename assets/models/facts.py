"""What a model is made of: the facts that memory maths and feasibility rules need, and the quantizations that we measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

QuantizationName = Literal["fp16", "fp8", "int8", "int4", "f16", "q8_0", "q4_0"]


@dataclass(frozen=True, slots=True)
class Quantization:
    """How weights are stored.

    `weight_bits` is the nominal width (what the quick estimate uses); `stored_bits_per_weight` includes scales and zero points.
    """

    name: QuantizationName
    weight_bits: int
    stored_bits_per_weight: float
    description: str


QUANTIZATIONS: dict[QuantizationName, Quantization] = {
    q.name: q
    for q in (
        Quantization("fp16", 16, 16.0, "16-bit floating point (float16 or bfloat16), unquantized"),
        Quantization("fp8", 8, 8.0, "8-bit floating point weights and activations (E4M3)"),
        Quantization("int8", 8, 8.0, "8-bit integer weights and activations (W8A8, per-channel scales)"),
        # group size 128: a 16-bit scale and a 4-bit zero point for each 128 weights
        Quantization("int4", 4, 4 + (16 + 4) / 128, "4-bit integer weights, 16-bit activations (W4A16: AWQ or GPTQ, group size 128)"),
        Quantization("f16", 16, 16.0, "GGUF F16, unquantized"),
        # GGML block formats: 32 weights share one 16-bit scale
        Quantization("q8_0", 8, 8.5, "GGUF Q8_0: 8-bit blocks of 32 with a 16-bit scale"),
        Quantization("q4_0", 4, 4.5, "GGUF Q4_0: 4-bit blocks of 32 with a 16-bit scale"),
    )
}


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Architecture facts of one model, as its `config.json` and weights give them. Counts are plain counts, not billions.

    `model_id` is Dyno's slug: lower case letters, digits, `.` and `-`; a hub id `Org/Name` becomes `org--name`.
    `revision` is the commit or content hash of the weights (`""` while unknown).
    """

    model_id: str
    name: str
    architecture: str
    params: int
    active_params: int
    layers: int
    hidden_size: int
    intermediate_size: int
    attention_heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    max_context_tokens: int
    hub_id: str | None = None
    revision: str = ""
    licence: str | None = None
    native_dtype: str = "bfloat16"
    tie_word_embeddings: bool = False
    sliding_window_tokens: int | None = None
    full_attention_layers: int | None = None
    kv_lora_rank: int | None = None
    qk_rope_head_dim: int | None = None
    experts: int | None = None
    experts_per_token: int | None = None
    formats: tuple[str, ...] = ("safetensors",)
    source: str = ""
