"""How much memory a deployment needs on each device: weights, KV cache, activations and what the engine itself takes.

All figures are bytes, per device, unless a name says otherwise. Sources of the formulas stand at the functions; figures of one
engine (its share of the memory, its overhead) come in as `EngineMemory` and are documented where they are written down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

from assets.models.facts import ModelFacts, Quantization

UNQUANTIZED_BYTES = 2
KV_CACHE_BYTES = 2
GGML_BATCH_TOKENS = 512
GGML_FLOAT_BYTES = 4
# Sampling holds the logits in the model's 16 bits, in float32, and their float32 probabilities.
SAMPLER_BYTES_PER_LOGIT = 2 + 4 + 4
VOCABULARY_PADDING = 64
QUICK_ESTIMATE_FACTOR = 1.2


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """How one engine uses a device's memory.

    `memory_fraction`: the share of the device's memory that the engine may fill. `overhead_bytes`: runtime, captured graphs and
    workspaces of each process; `tensor_parallel_overhead_bytes`: communication buffers, only when the weights are split.
    `prefill_tokens` and `max_sequences`: the largest forward pass and the most sequences sampled at once; they size the
    activations. `kv_block_tokens`: the KV cache is handed out in blocks. `kv_share_of_free`: the KV cache may take only this share
    of what the weights leave free (None: all of it). `quantizes_embeddings`: whether the embeddings have the weights' format.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    activations: Literal["transformer", "ggml"]
    memory_fraction: float
    overhead_bytes: int
    tensor_parallel_overhead_bytes: int
    prefill_tokens: int
    max_sequences: int
    kv_block_tokens: int = 16
    kv_share_of_free: float | None = None
    quantizes_embeddings: bool = False


@dataclass(frozen=True, slots=True)
class VramEstimate:
    """What one load point on one deployment needs, and what there is. Parts are bytes per device and add up to the requirement."""

    weights_bytes: int
    kv_cache_bytes: int
    activations_bytes: int
    engine_overhead_bytes: int
    reserved_bytes: int
    required_bytes_per_device: int
    available_bytes_per_device: int
    devices: int

    @property
    def fits(self) -> bool:
        return self.required_bytes_per_device <= self.available_bytes_per_device

    @property
    def required_bytes(self) -> int:
        """Over all devices."""
        return self.required_bytes_per_device * self.devices

    @property
    def available_bytes(self) -> int:
        """Over all devices."""
        return self.available_bytes_per_device * self.devices

    @property
    def parts(self) -> dict[str, int]:
        """What the requirement of one device is made of."""
        return {
            "weights_bytes": self.weights_bytes,
            "kv_cache_bytes": self.kv_cache_bytes,
            "activations_bytes": self.activations_bytes,
            "engine_overhead_bytes": self.engine_overhead_bytes,
            "reserved_bytes": self.reserved_bytes,
            "required_bytes_per_device": self.required_bytes_per_device,
            "available_bytes_per_device": self.available_bytes_per_device,
            "devices": self.devices,
        }


def quick_vram_bytes(params: int, weight_bits: int) -> int:
    """The quick estimate `(params x bits / 8) x 1.2`, in bytes over all devices: weights plus a fifth for everything else.

    It knows nothing of the architecture or of the load, and is kept beside the estimate by parts for comparison.
    """
    return round(params * weight_bits / 8 * QUICK_ESTIMATE_FACTOR)


def weights_bytes(facts: ModelFacts, quantization: Quantization, tensor_parallel: int = 1, *, quantizes_embeddings: bool = False) -> int:
    """Bytes of weights on each device.

    Matrices are split over the devices. Key and value projections are kept whole where there are more devices than KV heads, and
    the down-projection of a compressed (MLA) cache is on every device. Norms and the experts' routers are on every device and stay
    unquantized; so do embeddings and output head, which engines for GPUs split but do not quantize (vLLM's VocabParallelEmbedding
    pads the vocabulary to a multiple of 64).
    """
    tp = tensor_parallel
    body_bytes = quantization.stored_bits_per_weight / 8
    embedding_bytes = body_bytes if quantizes_embeddings else UNQUANTIZED_BYTES

    embeddings = facts.vocab_size * facts.hidden_size * (1 if facts.tie_word_embeddings else 2)
    norms = (2 * facts.layers + 1) * facts.hidden_size
    routers = facts.layers * facts.hidden_size * (facts.experts or 0)
    body = max(0, facts.params - embeddings - norms - routers)

    if facts.kv_lora_rank is not None:
        replicated = facts.layers * facts.hidden_size * (facts.kv_lora_rank + (facts.qk_rope_head_dim or 0))
        whole_share = 1.0
    else:
        replicated = 2 * facts.layers * facts.hidden_size * facts.kv_heads * facts.head_dim
        whole_share = max(1 / tp, 1 / facts.kv_heads)
    replicated = min(replicated, body)

    padded = math.ceil(facts.vocab_size / VOCABULARY_PADDING) * VOCABULARY_PADDING / facts.vocab_size
    return math.ceil(
        (body - replicated) / tp * body_bytes
        + replicated * whole_share * body_bytes
        + embeddings * padded / tp * embedding_bytes
        + (norms + routers) * UNQUANTIZED_BYTES
    )


def kv_cache_bytes_per_token(facts: ModelFacts, tensor_parallel: int = 1) -> int:
    """Bytes that one token adds to the KV cache of each device, in a 16-bit cache, over the layers that keep every token.

    Keys and values of each KV head (2 x layers x heads x head_dim), or one compressed latent per layer for MLA (kv_lora_rank +
    qk_rope_head_dim; DeepSeek-V2, arXiv:2405.04434), which every device keeps whole. Windowed layers: see `kv_cache_bytes`.
    """
    return _growing_layers(facts) * _layer_bytes_per_token(facts, tensor_parallel)


def kv_cache_bytes(facts: ModelFacts, sequences: int, tokens_per_sequence: int, tensor_parallel: int = 1, block_tokens: int = 16) -> int:
    """Bytes of KV cache on each device for `sequences` requests of that many tokens each, input and output.

    Tokens are rounded up to whole blocks. A layer with a sliding window keeps the window and the block that the oldest token is
    still in. Layers that are neither (linear attention, where `full_attention_layers` says so and there is no window) keep a state
    whose size does not grow with the tokens; it is not counted.
    """
    per_layer = _layer_bytes_per_token(facts, tensor_parallel)
    tokens = math.ceil(tokens_per_sequence / block_tokens) * block_tokens
    total = _growing_layers(facts) * tokens
    if facts.sliding_window_tokens is not None and facts.kv_lora_rank is None:
        window = math.ceil(facts.sliding_window_tokens / block_tokens) * block_tokens + block_tokens
        total += (facts.layers - _growing_layers(facts)) * min(tokens, window)
    return sequences * total * per_layer


def _growing_layers(facts: ModelFacts) -> int:
    if facts.kv_lora_rank is not None:
        return facts.layers
    if facts.full_attention_layers is not None:
        return facts.full_attention_layers
    return facts.layers if facts.sliding_window_tokens is None else 0


def _layer_bytes_per_token(facts: ModelFacts, tensor_parallel: int) -> int:
    if facts.kv_lora_rank is not None:
        return (facts.kv_lora_rank + (facts.qk_rope_head_dim or 0)) * KV_CACHE_BYTES
    return 2 * math.ceil(facts.kv_heads / tensor_parallel) * facts.head_dim * KV_CACHE_BYTES


def activations_bytes(facts: ModelFacts, memory: EngineMemory, tensor_parallel: int = 1) -> int:
    """The largest transient memory of one forward pass on each device.

    transformer: the greater of two moments. In the MLP of a full prefill each token holds its residual and hidden state and the
    gate, up and product vectors (2 x hidden + 3 x intermediate / devices, 16-bit; a mixture of experts has those, and an output,
    for each expert chosen). While sampling, logits of every sequence are held in 16 bits, in float32 and as probabilities. vLLM
    logs "PyTorch activation peak memory": 0.22 GiB for Llama 3.1 8B at 2,048 tokens and 2.02 GiB for Qwen2.5 1.5B at 32,768; this
    gives 0.20 and 1.83.

    ggml: logits and one hidden state of a micro-batch of 512 tokens in float32. llama.cpp logs "CPU compute buffer size" 258.50 MiB
    for Llama 3 8B and 70.50 MiB for Llama 2 7B; this gives the same.
    """
    if memory.activations == "ggml":
        return GGML_BATCH_TOKENS * (facts.vocab_size + facts.hidden_size) * GGML_FLOAT_BYTES
    inner = 3 * facts.intermediate_size / tensor_parallel
    if facts.experts_per_token:
        inner = facts.experts_per_token * (inner + facts.hidden_size)
    prefill = memory.prefill_tokens * (2 * facts.hidden_size + inner) * UNQUANTIZED_BYTES
    sampling = memory.max_sequences * facts.vocab_size * SAMPLER_BYTES_PER_LOGIT
    return math.ceil(max(prefill, sampling))


@dataclass(frozen=True)
class DeploymentMemory:
    """The memory of one deployment, whatever its load: made once for each engine launch, then asked for every load point."""

    facts: ModelFacts
    quantization: Quantization
    memory: EngineMemory
    device_memory_bytes: int
    tensor_parallel: int = 1

    @cached_property
    def weights_bytes(self) -> int:
        return weights_bytes(self.facts, self.quantization, self.tensor_parallel, quantizes_embeddings=self.memory.quantizes_embeddings)

    @cached_property
    def activations_bytes(self) -> int:
        return activations_bytes(self.facts, self.memory, self.tensor_parallel)

    @cached_property
    def overhead_bytes(self) -> int:
        return self.memory.overhead_bytes + (self.memory.tensor_parallel_overhead_bytes if self.tensor_parallel > 1 else 0)

    @cached_property
    def available_bytes(self) -> int:
        """Bytes of each device that the engine may fill."""
        return int(self.device_memory_bytes * self.memory.memory_fraction)

    @property
    def kv_capacity_tokens(self) -> int:
        """How many tokens the KV cache can hold ("GPU KV cache size" in vLLM's log); 0 where the weights alone do not fit.

        For models whose layers all keep every token.
        """
        free = self.available_bytes - self.weights_bytes
        if self.memory.kv_share_of_free is not None:
            kv_bytes = min(int(free * self.memory.kv_share_of_free), free - self.activations_bytes - self.overhead_bytes)
        else:
            kv_bytes = free - self.activations_bytes - self.overhead_bytes
        return max(0, kv_bytes) // kv_cache_bytes_per_token(self.facts, self.tensor_parallel)

    def at(self, sequences: int, tokens_per_sequence: int) -> VramEstimate:
        """The estimate while `sequences` requests of that many tokens each (input and output) are in flight."""
        kv_cache = kv_cache_bytes(self.facts, sequences, tokens_per_sequence, self.tensor_parallel, self.memory.kv_block_tokens)
        beside_weights = kv_cache + self.activations_bytes + self.overhead_bytes
        share = self.memory.kv_share_of_free
        reserved = 0 if share is None else max(0, math.ceil(kv_cache / share) - beside_weights)
        return VramEstimate(
            self.weights_bytes,
            kv_cache,
            self.activations_bytes,
            self.overhead_bytes,
            reserved,
            self.weights_bytes + beside_weights + reserved,
            self.available_bytes,
            self.tensor_parallel,
        )
