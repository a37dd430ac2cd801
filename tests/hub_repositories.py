"""Repositories as the hub has them, made here: tiny or small Llama-family models as GGUF files or as safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import ml_dtypes
import numpy as np
import numpy.typing as npt
from safetensors.numpy import save
from tokenizers import Tokenizer

from assets.models.gguf_writer import GgufQuantization, write_gguf
from assets.models.llama import GgufArchitecture, LlamaSpec, gguf_tensors, hf_tensor_shapes
from assets.models.local.build import LOCAL_MODELS, local_vocabulary
from assets.models.local.tokenizer import BOS, EOS, UNK, VOCAB_SIZE, local_tokenizer_json
from assets.models.local.weights import RandomWeights, visible_tokens

TINY = LlamaSpec("tiny", "llama", 2, 64, 128, 4, 2, 16, VOCAB_SIZE, 4096)
SMALL = LOCAL_MODELS["dyno-43m"].spec
LARGER = LOCAL_MODELS["dyno-82m"].spec
_HF_NAMES: Mapping[GgufArchitecture, str] = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}


def gguf_files(spec: LlamaSpec, quantizations: Sequence[GgufQuantization] = ("q8_0", "q4_0"), seed: int = 1) -> dict[str, bytes]:
    """A repository of GGUF files, one a quantization."""
    weights = RandomWeights(spec, seed, visible_tokens(Tokenizer.from_str(local_tokenizer_json())))
    files: dict[str, bytes] = {}
    with TemporaryDirectory() as folder:
        for quantization in quantizations:
            path = Path(folder) / f"{spec.name}-{quantization.upper()}.gguf"
            write_gguf(path, spec, local_vocabulary(), gguf_tensors(spec, weights.tensor), quantization=quantization)
            files[path.name] = path.read_bytes()
    return files


def safetensors_files(spec: LlamaSpec, seed: int = 1, stored_as: npt.DTypeLike = ml_dtypes.bfloat16, shards: int = 1) -> dict[str, bytes]:
    """A repository in the layout of `transformers`: bfloat16 weights in one file, config and tokenizer."""
    weights = RandomWeights(spec, seed, visible_tokens(Tokenizer.from_str(local_tokenizer_json())))
    tensors = {
        name: np.ascontiguousarray(weights.tensor(name).astype(ml_dtypes.bfloat16).astype(stored_as)) for name in hf_tensor_shapes(spec)
    }
    names = ["model.safetensors"] if shards == 1 else [f"model-{i:05}-of-{shards:05}.safetensors" for i in range(1, shards + 1)]
    config = {
        "architectures": [_HF_NAMES[spec.architecture]],
        "hidden_act": "silu",
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        "vocab_size": spec.vocab_size,
        "max_position_embeddings": spec.context,
        "rms_norm_eps": spec.rms_eps,
        "rope_theta": spec.rope_theta,
        "tie_word_embeddings": spec.tied,
        "torch_dtype": "bfloat16",
    }
    tokenizer_config = {"bos_token": BOS, "eos_token": EOS, "unk_token": UNK, "add_bos_token": True}
    return {
        "config.json": json.dumps(config).encode(),
        "tokenizer.json": local_tokenizer_json().encode(),
        "tokenizer_config.json": json.dumps(tokenizer_config).encode(),
        **{name: save({tensor: tensors[tensor] for tensor in sorted(tensors)[i::shards]}) for i, name in enumerate(names)},
    }


def params_of(spec: LlamaSpec) -> int:
    """How many numbers the tensors of a model hold."""
    return sum(int(np.prod(shape)) for shape in hf_tensor_shapes(spec).values())
