"""Builds the local models: two Llama shapes with random weights, in three quantizations.

43 and 82 million parameters: small enough to measure in a minute on one core, large enough that llama.cpp emits one token at a time.
Tokens of much smaller models come in bursts, which makes inter-token latency meaningless.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer

from assets.models.artifacts import GGUF_NAME, TOKENIZER_NAME, usable
from assets.models.errors import CorruptArtifactError, UnknownModelError
from assets.models.facts import ModelFacts
from assets.models.folders import locked, make_folder, model_dir, writing
from assets.models.gguf_vocabulary import GgufVocabulary, read_vocabulary
from assets.models.gguf_writer import GgufQuantization, write_gguf
from assets.models.llama import LlamaSpec, gguf_tensors, hf_tensor_shapes
from assets.models.local.tokenizer import BOS, CHAT_TEMPLATE, END_OF_TURN, EOS, UNK, VOCAB_SIZE, local_tokenizer_json
from assets.models.local.weights import RandomWeights, visible_tokens
from assets.models.manifest import Manifest, read_manifest, write_manifest
from assets.models.progress import Progress, no_progress

LOCAL_LICENCE = "apache-2.0"
_RECIPE = 1  # raise it when the bytes of a model change for a reason that its spec, seed and tokenizer do not show


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model that Dyno builds: its shape and the seed of its weights."""

    model_id: str
    spec: LlamaSpec
    seed: int


def _local_model(model_id: str, layers: int, seed: int) -> LocalModel:
    spec = LlamaSpec(
        name=model_id,
        architecture="llama",
        layers=layers,
        hidden_size=768,
        intermediate_size=2176,
        heads=12,
        kv_heads=4,
        head_dim=64,
        vocab_size=VOCAB_SIZE,
        context=8192,
        licence=LOCAL_LICENCE,
    )
    return LocalModel(model_id, spec, seed)


LOCAL_MODELS: dict[str, LocalModel] = {
    model.model_id: model for model in (_local_model("dyno-43m", layers=6, seed=43), _local_model("dyno-82m", layers=12, seed=82))
}


def local_model(model_id: str) -> LocalModel:
    """The local model of this id. Raises UnknownModelError."""
    if model_id not in LOCAL_MODELS:
        raise UnknownModelError(f"{model_id!r} is no local model: there are {', '.join(LOCAL_MODELS)}")
    return LOCAL_MODELS[model_id]


def local_vocabulary(vocab_size: int = VOCAB_SIZE) -> GgufVocabulary:
    """The local tokenizer as a GGUF file carries it."""
    config = {"bos_token": BOS, "eos_token": EOS, "unk_token": UNK, "add_bos_token": True, "chat_template": CHAT_TEMPLATE}
    return read_vocabulary(local_tokenizer_json(), vocab_size, config, END_OF_TURN)


@cache
def local_revision(model_id: str) -> str:
    """SHA-256 of everything that determines the weights and the tokenizer: known before the model is built."""
    model = local_model(model_id)
    tokenizer_sha256 = hashlib.sha256(local_tokenizer_json().encode()).hexdigest()
    recipe = {"recipe": _RECIPE, "spec": asdict(model.spec), "seed": model.seed, "tokenizer_sha256": tokenizer_sha256}
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def local_facts(model_id: str) -> ModelFacts:
    """Facts of a local model. Raises UnknownModelError."""
    spec = local_model(model_id).spec
    params = sum(math.prod(shape) for shape in hf_tensor_shapes(spec).values())
    return ModelFacts(
        model_id=model_id,
        name=model_id,
        architecture="LlamaForCausalLM",
        params=params,
        active_params=params,
        layers=spec.layers,
        hidden_size=spec.hidden_size,
        intermediate_size=spec.intermediate_size,
        attention_heads=spec.heads,
        kv_heads=spec.kv_heads,
        head_dim=spec.head_dim,
        vocab_size=spec.vocab_size,
        max_context_tokens=spec.context,
        revision=local_revision(model_id),
        licence=LOCAL_LICENCE,
        native_dtype="float16",
        formats=("gguf",),
        source="built by Dyno: random weights, tokenizer trained on the project's corpus",
    )


def ensure_local_model(model_id: str, quantization: GgufQuantization, state_dir: Path, progress: Progress = no_progress) -> Manifest:
    """Build the model where it is missing, out of date or damaged (a damaged file is reported as a warning).

    Afterwards `<state_dir>/models/<model_id>/` holds `tokenizer.json` and `<quantization>/{model.gguf,tokenizer.json,manifest.json}`.

    Returns:
        The manifest of the quantization's folder, verified.

    Raises:
        UnknownModelError: no such local model.
        ArtifactWriteError: the files cannot be written.
    """
    model = local_model(model_id)
    folder = model_dir(state_dir, model_id)
    target = folder / quantization
    with writing(folder), locked(folder):
        manifest = usable(target, local_revision(model_id))
        if manifest is None:
            make_folder(target, lambda building: _fill(building, model, quantization, progress))
            manifest = read_manifest(target)
        shared_tokenizer = folder / TOKENIZER_NAME
        text = local_tokenizer_json()
        if not shared_tokenizer.exists() or shared_tokenizer.read_text(encoding="utf-8", errors="replace") != text:
            temporary = folder / f".{TOKENIZER_NAME}"
            shutil.copyfile(target / TOKENIZER_NAME, temporary)
            temporary.replace(shared_tokenizer)
    if manifest is None:
        raise CorruptArtifactError(f"{target} lost its manifest while it was built")
    return manifest


def _fill(building: Path, model: LocalModel, quantization: GgufQuantization, progress: Progress) -> None:
    text = local_tokenizer_json()
    weights = RandomWeights(model.spec, model.seed, visible_tokens(Tokenizer.from_str(text)))
    tensors = gguf_tensors(model.spec, weights.tensor)
    write_gguf(building / GGUF_NAME, model.spec, local_vocabulary(), tensors, quantization=quantization, progress=progress)
    (building / TOKENIZER_NAME).write_text(text, encoding="utf-8")
    write_manifest(building, (GGUF_NAME, TOKENIZER_NAME), local_revision(model.model_id))
