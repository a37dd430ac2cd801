"""Heads of GGUF files: what our writer wrote is read back, and no damaged head gets past with anything but its own error."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import pytest
from gguf import GGUFValueType
from hypothesis import given
from hypothesis import strategies as st

from assets.models.errors import InvalidModelError
from assets.models.gguf_header import GgufArray, GgufHeader, facts_from_gguf, read_gguf_header, read_gguf_header_of
from tests.hub_repositories import TINY, gguf_files, params_of


@pytest.fixture(scope="module")
def tiny() -> bytes:
    return gguf_files(TINY, ["q4_0"])["tiny-Q4_0.gguf"]


def parse(data: bytes) -> GgufHeader:
    return read_gguf_header(lambda start, size: data[start : start + size], "tiny.gguf")


def head(metadata: bytes, keys: int = 1, tensors: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + metadata


def entry(key: str, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + value


def test_what_was_written_is_read_back(tiny: bytes) -> None:
    """Shape, parameters and facts of the model, without touching the weights."""
    header = parse(tiny)
    facts = facts_from_gguf(header, model_id="tiny", name="tiny")
    assert (facts.layers, facts.hidden_size, facts.attention_heads, facts.kv_heads) == (TINY.layers, TINY.hidden_size, 4, 2)
    assert (facts.head_dim, facts.vocab_size, facts.max_context_tokens) == (TINY.head_dim, TINY.vocab_size, TINY.context)
    assert facts.params == facts.active_params == params_of(TINY)
    assert header.metadata["tokenizer.ggml.tokens"] == GgufArray(TINY.vocab_size)
    assert header.types["blk.0.ffn_up.weight"] == "Q4_0"
    assert header.types["output.weight"] == "Q8_0"
    assert header.types["output_norm.weight"] == "F32"


def test_our_reader_and_the_librarys_agree(tiny: bytes, tmp_path: Path) -> None:
    """`gguf.GGUFReader` reads whole files, ours only heads."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(tiny)
    reader, header = gguf.GGUFReader(path), read_gguf_header_of(path)
    assert {tensor.name: (tuple(int(n) for n in tensor.shape), tensor.tensor_type.name) for tensor in reader.tensors} == {
        name: (shape, header.types[name]) for name, shape in header.shapes.items()
    }


def test_only_the_head_is_asked_for(tiny: bytes) -> None:
    """A model of 100 GB on the hub is described by a few ranged requests."""
    asked: list[tuple[int, int]] = []

    def read(start: int, size: int) -> bytes:
        asked.append((start, size))
        return tiny[start : start + size]

    many_weights = read_gguf_header(read, "tiny.gguf")
    assert many_weights == parse(tiny)
    assert len(asked) == 1


@given(st.binary(max_size=400))
def test_noise_is_refused(noise: bytes) -> None:
    """Behind a right magic number and version as well."""
    for data in (noise, b"GGUF" + noise, b"GGUF" + struct.pack("<I", 3) + noise):
        try:
            parse(data)
        except InvalidModelError:
            continue
        assert data[8:24] == bytes(16)  # no keys and no tensors: an empty head, which facts_from_gguf refuses


@given(st.data())
def test_a_damaged_head_is_read_or_refused_never_more(tiny: bytes, data: st.DataObject) -> None:
    """Cut off or with bytes changed anywhere: facts, or InvalidModelError."""
    damaged = bytearray(tiny[: data.draw(st.integers(0, 60_000))])
    for _ in range(data.draw(st.integers(0, 4))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        facts = facts_from_gguf(parse(bytes(damaged)), model_id="tiny", name="tiny")
    except InvalidModelError:
        return
    assert facts.params > 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "truncated"),
        (b"PK\x03\x04" + bytes(40), "no GGUF file"),
        (head(b"", version=1), "version 1"),
        (head(b"")[:20], "truncated"),
        (head(struct.pack("<Q", 1 << 62)), "larger than"),
        (head(entry("k", 99, b"")), "damaged"),
        (head(entry("k", GGUFValueType.ARRAY, struct.pack("<IQ", GGUFValueType.UINT64, 1 << 60)) + bytes(64), keys=2), "larger than"),
        (head(b"".join([entry("k", GGUFValueType.ARRAY, b""), *[struct.pack("<IQ", GGUFValueType.ARRAY, 1)] * 5000])), "array of arrays"),
        (head(struct.pack("<Q", 1) + b"t" + struct.pack("<I", 1 << 31), keys=0, tensors=1), "dimensions"),
    ],
)
def test_each_kind_of_damage_is_named(data: bytes, message: str) -> None:
    """Also the ones made to exhaust memory or the stack of who reads them."""
    with pytest.raises(InvalidModelError, match=message):
        parse(data)


def test_a_file_that_is_no_language_model_is_refused() -> None:
    """Image encoders and adapters come as GGUF too."""
    clip = head(entry("general.architecture", GGUFValueType.STRING, struct.pack("<Q", 4) + b"clip"))
    with pytest.raises(InvalidModelError, match="describes no language model"):
        facts_from_gguf(parse(clip), model_id="clip", name="clip")
