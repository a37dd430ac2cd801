"""A local model in the Hugging Face layout, for engines that do not read GGUF. The weights are those of the GGUF files, in float16."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from assets.models.artifacts import TOKENIZER_NAME, usable
from assets.models.convert import TOKENIZER_CONFIG_NAME
from assets.models.errors import CorruptArtifactError
from assets.models.facts import QuantizationName
from assets.models.folders import locked, make_folder, model_dir, writing
from assets.models.llama import LlamaSpec, hf_tensor_shapes
from assets.models.local.build import LocalModel, local_model, local_revision
from assets.models.local.tokenizer import BOS, CHAT_TEMPLATE, EOS, UNK, local_tokenizer_json
from assets.models.local.weights import RandomWeights, visible_tokens
from assets.models.manifest import Manifest, read_manifest, write_manifest

QUANTIZATION: Final[QuantizationName] = "fp16"
CONFIG_NAME = "config.json"
GENERATION_CONFIG_NAME = "generation_config.json"
WEIGHTS_NAME = "model.safetensors"


def ensure_local_safetensors(model_id: str, state_dir: Path) -> Manifest:
    """Build `<state_dir>/models/<model_id>/fp16/` where it is missing, out of date or damaged.

    Returns:
        The folder's manifest, verified.

    Raises:
        UnknownModelError: no such local model.
        ArtifactWriteError: the files cannot be written.
    """
    model = local_model(model_id)
    folder = model_dir(state_dir, model_id)
    target = folder / QUANTIZATION
    with writing(folder), locked(folder):
        manifest = usable(target, local_revision(model_id))
        if manifest is None:
            make_folder(target, lambda building: _fill(building, model))
            manifest = read_manifest(target)
    if manifest is None:
        raise CorruptArtifactError(f"{target} lost its manifest while it was built")
    return manifest


def llama_config(spec: LlamaSpec, bos_token_id: int | None, eos_token_id: int | None) -> dict[str, object]:
    """`config.json` of a Llama model of this shape (transformers, `LlamaConfig`)."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": spec.attention_bias,
        "bos_token_id": bos_token_id,
        "dtype": "float16",
        "eos_token_id": eos_token_id,
        "head_dim": spec.head_dim,
        "hidden_act": "silu",
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "max_position_embeddings": spec.context,
        "mlp_bias": False,
        "num_attention_heads": spec.heads,
        "num_hidden_layers": spec.layers,
        "num_key_value_heads": spec.kv_heads,
        "rms_norm_eps": spec.rms_eps,
        "rope_theta": spec.rope_theta,
        "tie_word_embeddings": spec.tied,
        "vocab_size": spec.vocab_size,
    }


def _fill(building: Path, model: LocalModel) -> None:
    tokenizer = Tokenizer.from_str(local_tokenizer_json())
    weights = RandomWeights(model.spec, model.seed, visible_tokens(tokenizer))
    tensors = {name: weights.tensor(name).astype(np.float16) for name in hf_tensor_shapes(model.spec)}
    save_file(tensors, building / WEIGHTS_NAME, metadata={"format": "pt"})
    (building / WEIGHTS_NAME).chmod(0o644)  # safetensors lets nobody else read it
    bos, eos = tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)
    _write_json(building / CONFIG_NAME, llama_config(model.spec, bos, eos))
    _write_json(building / GENERATION_CONFIG_NAME, {"bos_token_id": bos, "eos_token_id": eos})
    _write_json(
        building / TOKENIZER_CONFIG_NAME,
        {
            "bos_token": BOS,
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "eos_token": EOS,
            "model_max_length": model.spec.context,
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": UNK,
        },
    )
    (building / TOKENIZER_NAME).write_text(local_tokenizer_json(), encoding="utf-8")
    names = (WEIGHTS_NAME, CONFIG_NAME, GENERATION_CONFIG_NAME, TOKENIZER_CONFIG_NAME, TOKENIZER_NAME)
    write_manifest(building, names, local_revision(model.model_id))


def _write_json(path: Path, document: Mapping[str, object]) -> None:
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
