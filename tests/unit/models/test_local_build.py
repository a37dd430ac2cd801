"""The local models: the same bytes on every machine, weights within the error of their format, a tokenizer that both sides share."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize
from tokenizers import Tokenizer

from assets.models.artifacts import resolve_local_artifact
from assets.models.errors import CorruptArtifactError, InvalidModelError, UnknownModelError
from assets.models.gguf_vocabulary import read_vocabulary
from assets.models.gguf_writer import GGUF_QUANTIZATIONS, GgufQuantization, write_gguf
from assets.models.llama import (
    Array,
    LlamaSpec,
    RopeScaling,
    gguf_name,
    gguf_tensors,
    hf_tensor_shapes,
    llama3_rope_factors,
    permute_rotary,
)
from assets.models.local.build import LOCAL_MODELS, ensure_local_model, local_facts, local_revision, local_vocabulary
from assets.models.local.tokenizer import VOCAB_SIZE, local_tokenizer_json
from assets.models.local.weights import RandomWeights, visible_tokens
from tests.hub_repositories import TINY

# of seed 43 and the tensor model.layers.0.mlp.up_proj.weight of TINY
PUBLISHED_WEIGHTS = (0.13953733444213867, 0.08872019499540329, -0.05197672173380852, -0.1120375320315361)


def weights(spec: LlamaSpec, seed: int = 1) -> RandomWeights:
    return RandomWeights(spec, seed, visible_tokens(Tokenizer.from_str(local_tokenizer_json())))


def test_the_same_seed_makes_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    """Two machines that measure `dyno-43m` measure the same model."""
    paths = [tmp_path / name for name in ("first", "second", "other")]
    for path, seed in zip(paths, (1, 1, 2), strict=True):
        write_gguf(path, TINY, local_vocabulary(), gguf_tensors(TINY, weights(TINY, seed).tensor), quantization="q8_0")
    first, second, other = (path.read_bytes() for path in paths)
    assert first == second
    assert first != other


def test_the_generators_stream_is_the_one_that_was_published() -> None:
    """The first numbers of a tensor, so that a change of NumPy or of the recipe shows: the revision would have to change with it."""
    first = weights(TINY, 43).tensor("model.layers.0.mlp.up_proj.weight")[0, :4]
    np.testing.assert_array_equal(first, np.array(PUBLISHED_WEIGHTS, dtype=np.float32))


@pytest.mark.parametrize(("quantization", "bound"), [("f16", 2**-11), ("q8_0", 1 / 254 + 2**-11), ("q4_0", 1 / 8 + 2**-11)])
def test_stored_weights_are_within_the_error_of_their_format(tmp_path: Path, quantization: GgufQuantization, bound: float) -> None:
    """Half a step of the scale: 1/254 of a block's largest value in Q8_0; in Q4_0 a whole step (1/8) at the end that its range lacks.

    F16 is bound relative to each value, the others relative to their block of 32, whose scale is itself an F16 number.
    """
    source = weights(TINY)
    path = tmp_path / "model.gguf"
    write_gguf(path, TINY, local_vocabulary(), gguf_tensors(TINY, source.tensor), quantization=quantization)
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for name in hf_tensor_shapes(TINY):
        true = next(tensor for tensor in gguf_tensors(TINY, source.tensor) if tensor.name == gguf_name(name)).load()
        tensor = stored[gguf_name(name)]
        found = dequantize(tensor.data, tensor.tensor_type).reshape(true.shape)
        if true.ndim == 1:
            np.testing.assert_array_equal(found, true)
            continue
        scale = np.abs(true) if quantization == "f16" else np.abs(true).reshape(-1, 32).max(axis=1).repeat(32).reshape(true.shape)
        assert (np.abs(found - true) <= bound * scale + 1e-7).all(), name


@pytest.mark.parametrize("model_id", sorted(LOCAL_MODELS))
def test_facts_are_those_of_the_shape(model_id: str) -> None:
    """The name says how many million parameters."""
    facts = local_facts(model_id)
    assert round(facts.params / 1e6) == int(model_id.removeprefix("dyno-").removesuffix("m"))
    assert facts.attention_heads * facts.head_dim == facts.hidden_size
    assert len({local_revision(other) for other in LOCAL_MODELS}) == len(LOCAL_MODELS)


def test_an_unknown_local_model_is_refused(tmp_path: Path) -> None:
    """With the ones there are."""
    with pytest.raises(UnknownModelError, match="dyno-43m, dyno-82m"):
        ensure_local_model("dyno-1b", "q8_0", tmp_path)


def test_a_model_is_built_once_and_again_when_a_byte_of_it_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is there and whole is not touched; what is damaged is refused when used, and mended by the next build."""
    first = ensure_local_model("dyno-43m", "q4_0", tmp_path)
    path = resolve_local_artifact("dyno-43m", "q4_0", tmp_path).model_path
    made = path.stat().st_mtime_ns
    assert ensure_local_model("dyno-43m", "q4_0", tmp_path) == first
    assert path.stat().st_mtime_ns == made
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptArtifactError, match=r"model\.gguf is damaged"):
        resolve_local_artifact("dyno-43m", "q4_0", tmp_path)
    assert ensure_local_model("dyno-43m", "q4_0", tmp_path) == first
    assert "making it anew" in caplog.text
    assert resolve_local_artifact("dyno-43m", "q4_0", tmp_path).model_path == path


def test_rows_that_do_not_fill_a_block_are_refused(tmp_path: Path) -> None:
    """Q8_0 and Q4_0 keep 32 values together."""
    odd = replace(TINY, hidden_size=48, head_dim=12)
    tensors = gguf_tensors(odd, weights(odd).tensor)
    with pytest.raises(InvalidModelError, match="no multiple of 32"):
        write_gguf(tmp_path / "odd.gguf", odd, local_vocabulary(), tensors, quantization="q8_0")


def test_every_output_token_is_visible_text() -> None:
    """Each generated token must reach the client as a chunk of its own, or inter-token latency would be counted over fewer tokens."""
    tokenizer = Tokenizer.from_str(local_tokenizer_json())
    visible = visible_tokens(tokenizer)
    assert visible.sum() > VOCAB_SIZE // 2
    for token_id in np.flatnonzero(visible):
        text = tokenizer.decode([int(token_id)], skip_special_tokens=False)
        assert text.isascii()
        assert text.strip()


def test_the_vocabulary_of_the_gguf_file_is_the_tokenizers() -> None:
    """Ids, special tokens and the begin-of-sequence rule: engine and client must count the same tokens."""
    tokenizer = Tokenizer.from_str(local_tokenizer_json())
    vocabulary = local_vocabulary()
    assert vocabulary.tokens == [tokenizer.id_to_token(index) for index in range(VOCAB_SIZE)]
    assert vocabulary.add_bos
    assert vocabulary.bos_id == tokenizer.encode("a").ids[0]
    assert (vocabulary.model, vocabulary.pre) == ("gpt2", "gpt-2")


def test_rows_beyond_the_tokenizer_are_unused_tokens() -> None:
    """Embeddings are often padded to a round number of rows."""
    padded = local_vocabulary(VOCAB_SIZE + 3).tokens
    assert padded[:VOCAB_SIZE] == local_vocabulary().tokens
    assert len(set(padded)) == VOCAB_SIZE + 3


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "damaged"), ('{"model": {"type": "Unigram", "vocab": []}}', "BPE"), (local_tokenizer_json(), "only 100 rows")],
)
def test_tokenizers_that_cannot_be_carried_over_are_refused(text: str, message: str) -> None:
    """With a wrong tokenizer all token counts would be wrong."""
    with pytest.raises(InvalidModelError, match=message):
        read_vocabulary(text, 100, {})


def test_reordering_a_head_keeps_the_product_of_queries_and_keys() -> None:
    """Queries and keys are reordered alike, so that every attention score stays what it was."""
    generator = np.random.default_rng(1)
    queries, keys = (generator.standard_normal((32, 8)).astype(np.float32) for _ in range(2))
    np.testing.assert_allclose(permute_rotary(queries, 2).T @ permute_rotary(keys, 2), queries.T @ keys, rtol=1e-5, atol=1e-5)
    assert permute_rotary(np.arange(8, dtype=np.float32), 1).tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


def test_llama_31_rope_factors() -> None:
    """Llama 3.1: factor 8, original context 8,192, low 1, high 4 (config.json). Short waves stay, long ones are stretched eightfold."""
    factors: Array = llama3_rope_factors(500_000.0, 128, RopeScaling("llama3", 8.0, 8192, 1.0, 4.0))
    wavelengths = [2 * math.pi * 500_000.0 ** (2 * i / 128) for i in range(64)]
    assert all(factor == 1 for factor, wave in zip(factors, wavelengths, strict=True) if wave < 8192 / 4)
    assert all(factor == 8 for factor, wave in zip(factors, wavelengths, strict=True) if wave > 8192)
    assert (np.diff(factors) >= 0).all()
    assert any(1 < factor < 8 for factor in factors)


@pytest.mark.parametrize("quantization", GGUF_QUANTIZATIONS)
def test_progress_ends_at_the_whole(tmp_path: Path, quantization: GgufQuantization) -> None:
    """A bar that stops at 97 % makes people wait."""
    seen: list[tuple[int, int]] = []
    tensors = gguf_tensors(TINY, weights(TINY).tensor)
    path = tmp_path / "model.gguf"
    write_gguf(
        path, TINY, local_vocabulary(), tensors, quantization=quantization, progress=lambda _, done, total: seen.append((done, total))
    )
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1] <= path.stat().st_size
