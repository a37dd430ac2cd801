"""From a folder of safetensors in the Hugging Face layout to a GGUF file: dense Llama-family models.

The same tensors, names and rotary order as llama.cpp's own converter gives; what it would need beyond that is refused with a reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from assets.models.errors import InvalidModelError
from assets.models.facts import ModelFacts
from assets.models.gguf_vocabulary import GgufVocabulary, read_vocabulary
from assets.models.gguf_writer import GgufQuantization, write_gguf
from assets.models.llama import Array, GgufArchitecture, LlamaSpec, RopeKind, RopeScaling, gguf_tensors, hf_tensor_shapes
from assets.models.progress import Progress, no_progress

CONVERTIBLE: Mapping[str, GgufArchitecture] = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
TOKENIZER_CONFIG_NAME = "tokenizer_config.json"
DEFAULT_ROPE_THETA = 10_000.0  # transformers' default for these architectures
DEFAULT_RMS_EPS = 1e-6
_ROPE_KINDS: Mapping[str, RopeKind] = {"linear": "linear", "yarn": "yarn", "llama3": "llama3"}
_COMPUTED = ("rotary_emb.inv_freq",)  # in old files, made anew by every engine


def spec_of(facts: ModelFacts, config: Mapping[str, Any]) -> LlamaSpec:
    """The shape of a model of the hub as a GGUF file states it.

    Raises:
        InvalidModelError: the architecture, its activation or its rotary scaling is not one that Dyno converts.
    """
    architecture = CONVERTIBLE.get(facts.architecture)
    if architecture is None or facts.experts:
        raise InvalidModelError(f"Dyno converts {', '.join(CONVERTIBLE)} to GGUF, not {facts.architecture}: use a GGUF file of this model")
    if config.get("quantization_config"):
        raise InvalidModelError("its weights are quantized already: Dyno converts 16 and 32 bit weights")
    if config.get("hidden_act", "silu") != "silu" or config.get("mlp_bias"):
        raise InvalidModelError("its feed-forward layers are not those of Llama (SiLU, no bias): use a GGUF file of this model")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return LlamaSpec(
        name=facts.name,
        architecture=architecture,
        layers=facts.layers,
        hidden_size=facts.hidden_size,
        intermediate_size=facts.intermediate_size,
        heads=facts.attention_heads,
        kv_heads=facts.kv_heads,
        head_dim=facts.head_dim,
        vocab_size=facts.vocab_size,
        # within the window, attention with a sliding window is the attention that llama.cpp computes
        context=min(facts.max_context_tokens, facts.sliding_window_tokens or facts.max_context_tokens),
        rope_theta=float(config.get("rope_theta") or rope.get("rope_theta") or DEFAULT_ROPE_THETA),
        rms_eps=float(config.get("rms_norm_eps") or DEFAULT_RMS_EPS),
        tied=facts.tie_word_embeddings,
        attention_bias=architecture == "qwen2" or bool(config.get("attention_bias")),
        rope_scaling=_rope_scaling(rope, facts.max_context_tokens),
        licence=facts.licence,
    )


def convert(source: Path, target: Path, spec: LlamaSpec, quantization: GgufQuantization, progress: Progress = no_progress) -> None:
    """Write `target` from the safetensors and the tokenizer in the folder `source`; one tensor is in memory at a time.

    Raises:
        InvalidModelError: a file is damaged or missing, or its tensors are not those of `spec`.
        OSError: the file cannot be written.
    """
    with ExitStack() as stack:
        read = _open_tensors(stack, source, spec)
        tensors = gguf_tensors(spec, read)
        write_gguf(target, spec, _vocabulary(source, spec), tensors, quantization=quantization, progress=progress)


def _rope_scaling(rope: Mapping[str, Any], context: int) -> RopeScaling | None:
    named = rope.get("rope_type") or rope.get("type") or "default"
    if named == "default":
        return None
    kind = _ROPE_KINDS.get(named)
    if kind is None:
        raise InvalidModelError(f"its rotary embedding is scaled by `{named}`, which Dyno does not convert: use a GGUF file of this model")
    return RopeScaling(
        kind=kind,
        factor=float(rope["factor"]),
        original_context=int(rope.get("original_max_position_embeddings") or context),
        low_freq_factor=float(rope.get("low_freq_factor") or 1.0),
        high_freq_factor=float(rope.get("high_freq_factor") or 4.0),
    )


def _open_tensors(stack: ExitStack, source: Path, spec: LlamaSpec) -> Callable[[str], Array]:
    """A function that reads one tensor as float32. All names and shapes are checked first."""
    files = sorted(source.glob("*.safetensors"))
    if not files:
        raise InvalidModelError(f"{source} holds no safetensors")
    readers: dict[str, Any] = {}
    for path in files:
        try:
            reader = stack.enter_context(safe_open(path, framework="numpy"))
        except SafetensorError as error:
            raise InvalidModelError(f"{path.name} is damaged ({error}): fetch the model again") from error
        readers.update(dict.fromkeys(reader.keys(), reader))
    expected = hf_tensor_shapes(spec)
    ignored = {"lm_head.weight"} if spec.tied else set()
    unknown = sorted(name for name in readers.keys() - expected.keys() - ignored if not name.endswith(_COMPUTED))
    missing = sorted(expected.keys() - readers.keys())
    if unknown or missing:
        raise InvalidModelError(f"its tensors are not those of its config.json: unknown {unknown[:3]}, missing {missing[:3]}")
    for name, shape in expected.items():
        found = tuple(readers[name].get_slice(name).get_shape())
        if found != shape:
            raise InvalidModelError(f"tensor {name} has the shape {list(found)}, its config.json says {list(shape)}")
    return lambda name: _float32(name, readers[name])


def _float32(name: str, reader: Any) -> Array:
    stored = np.asarray(reader.get_tensor(name))
    if stored.dtype not in {np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)}:
        raise InvalidModelError(f"tensor {name} is stored as {stored.dtype}: Dyno converts F32, F16 and BF16")
    return stored.astype(np.float32)


def _vocabulary(source: Path, spec: LlamaSpec) -> GgufVocabulary:
    tokenizer = source / "tokenizer.json"
    if not tokenizer.exists():
        raise InvalidModelError("the model has no tokenizer.json: use a GGUF file of this model")
    config_path = source / TOKENIZER_CONFIG_NAME
    try:
        config = json.loads(config_path.read_text(encoding="utf-8")) if config_path.exists() else {}
        return read_vocabulary(tokenizer.read_text(encoding="utf-8"), spec.vocab_size, config)
    except ValueError as error:
        raise InvalidModelError(f"the tokenizer's files are damaged: {error}") from error
