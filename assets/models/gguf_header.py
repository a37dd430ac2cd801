"""Reads the head of a GGUF file (metadata and tensor shapes, not the weights) from disk or over HTTP ranges.

The `gguf` package's reader maps the whole file; this one asks for pieces, so that facts of a 40 GB file on the hub cost a few MB.
Format: ggml's `docs/gguf.md`, versions 2 and 3, little endian.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGMLQuantizationType, GGUFValueType

from assets.models.errors import InvalidModelError
from assets.models.facts import ModelFacts

# Reads `size` bytes at `offset`; fewer only at the end of the file.
ReadRange = Callable[[int, int], bytes]

_PIECE_BYTES = 1 << 20
_MAX_HEAD_BYTES = 256 << 20  # a vocabulary of a million tokens takes about 40 MB
_MAX_DIMENSIONS = 4  # GGML_MAX_DIMS
_SCALARS = {
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT64: "d",
}
_ARCHITECTURE_NAMES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}


@dataclass(frozen=True, slots=True)
class GgufArray:
    """An array in the metadata, of which only the length is kept."""

    length: int


@dataclass(frozen=True)
class GgufHeader:
    """Metadata by key and, by tensor name, the shape (rows last) and the type's name."""

    metadata: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    types: dict[str, str]

    @property
    def architecture(self) -> str:
        """`general.architecture`, for example `llama`."""
        return str(self.metadata.get("general.architecture", ""))

    @property
    def params(self) -> int:
        """Numbers in all tensors, apart from the table of rotary frequencies."""
        return sum(math.prod(shape) for name, shape in self.shapes.items() if not name.startswith("rope_"))


def read_gguf_header_of(path: Path) -> GgufHeader:
    """Head of a GGUF file on disk. Raises InvalidModelError, OSError."""
    with path.open("rb") as file:

        def read(offset: int, size: int) -> bytes:
            file.seek(offset)
            return file.read(size)

        return read_gguf_header(read, path.name)


def read_gguf_header(read: ReadRange, name: str) -> GgufHeader:
    """Head of a GGUF file; `name` appears in messages.

    Raises:
        InvalidModelError: not a GGUF file of version 2 or 3, or truncated.
    """
    cursor = _Cursor(read, name)
    if cursor.take(4) != b"GGUF":
        raise InvalidModelError(f"{name} is no GGUF file: its first bytes are not GGUF")
    version = cursor.number("I")
    if version not in {2, 3}:
        raise InvalidModelError(f"{name} is GGUF version {version}: Dyno reads versions 2 and 3")
    tensor_count, key_count = cursor.number("Q"), cursor.number("Q")
    try:
        metadata = {}
        for _ in range(key_count):
            key = cursor.string()
            metadata[key] = _value(cursor, GGUFValueType(cursor.number("I")))
        shapes: dict[str, tuple[int, ...]] = {}
        types: dict[str, str] = {}
        for _ in range(tensor_count):
            tensor = cursor.string()
            shapes[tensor] = _shape(cursor, tensor)
            types[tensor] = GGMLQuantizationType(cursor.number("I")).name
            cursor.number("Q")
    except (ValueError, struct.error) as error:
        raise InvalidModelError(f"{name} is damaged: {error}") from error
    return GgufHeader(metadata, shapes, types)


def facts_from_gguf(
    header: GgufHeader,
    *,
    model_id: str,
    name: str,
    hub_id: str | None = None,
    revision: str = "",
    licence: str | None = None,
    source: str = "",
) -> ModelFacts:
    """Facts of a model that comes as GGUF only.

    Raises:
        InvalidModelError: the file is no language model, or its head lacks a field.
    """
    architecture = header.architecture
    if not architecture or f"{architecture}.block_count" not in header.metadata:
        raise InvalidModelError(f"{name}: the GGUF file describes no language model (its architecture is {architecture or 'missing'!r})")
    heads, hidden = _field(header, "attention.head_count"), _field(header, "embedding_length")
    experts = _field(header, "expert_count", 0)
    inner = _field(header, "expert_feed_forward_length" if experts else "feed_forward_length", _field(header, "feed_forward_length", 0))
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    vocab_size = tokens.length if isinstance(tokens, GgufArray) else _field(header, "vocab_size")
    layers = _field(header, "block_count")
    experts_per_token = _field(header, "expert_used_count") if experts else None
    expert_params = sum(math.prod(shape) for tensor, shape in header.shapes.items() if "_exps." in tensor)
    idle = expert_params * (experts - experts_per_token) // experts if experts_per_token else 0
    return ModelFacts(
        model_id=model_id,
        name=name,
        architecture=_ARCHITECTURE_NAMES.get(architecture, architecture),
        params=header.params,
        active_params=header.params - idle,
        layers=layers,
        hidden_size=hidden,
        intermediate_size=inner,
        attention_heads=heads,
        kv_heads=_field(header, "attention.head_count_kv", heads),
        head_dim=_field(header, "attention.key_length", hidden // heads),
        vocab_size=vocab_size,
        max_context_tokens=_field(header, "context_length"),
        hub_id=hub_id,
        revision=revision,
        licence=licence,
        native_dtype="float16",
        tie_word_embeddings="output.weight" not in header.shapes,
        sliding_window_tokens=_field(header, "attention.sliding_window", 0) or None,
        experts=experts or None,
        experts_per_token=experts_per_token,
        formats=("gguf",),
        source=source,
    )


def _field(header: GgufHeader, key: str, default: int | None = None) -> int:
    value = header.metadata.get(f"{header.architecture}.{key}", default)
    if not isinstance(value, int) or value < 0 or (value == 0 and default is None):
        raise InvalidModelError(f"the GGUF file lacks `{header.architecture}.{key}`, or has no positive number there ({value!r})")
    return value


class _Cursor:
    """A position in a file that is read piece by piece; skipped parts are never asked for."""

    def __init__(self, read: ReadRange, name: str) -> None:
        self._read = read
        self._name = name
        self._start = 0
        self._data = b""
        self._at = 0

    def take(self, size: int) -> bytes:
        offset = self._at - self._start
        if offset + size > len(self._data):
            if self._at + size > _MAX_HEAD_BYTES:
                raise InvalidModelError(f"{self._name} is damaged: its head claims to be larger than {_MAX_HEAD_BYTES} bytes")
            self._data = self._read(self._at, max(size, _PIECE_BYTES))
            self._start, offset = self._at, 0
            if len(self._data) < size:
                raise InvalidModelError(f"{self._name} is truncated: it ends within its head")
        self._at += size
        return self._data[offset : offset + size]

    def skip(self, size: int) -> None:
        self._at += size
        if self._at > self._start + len(self._data):
            self._data, self._start = b"", self._at

    def number(self, code: str) -> int:
        return int(struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0])

    def string(self) -> str:
        return self.take(self.number("Q")).decode("utf-8", errors="replace")


def _shape(cursor: _Cursor, tensor: str) -> tuple[int, ...]:
    dimensions = cursor.number("I")
    if dimensions > _MAX_DIMENSIONS:
        raise ValueError(f"tensor {tensor!r} has {dimensions} dimensions")
    return tuple(cursor.number("Q") for _ in range(dimensions))


def _value(cursor: _Cursor, kind: GGUFValueType) -> Any:
    if kind == GGUFValueType.STRING:
        return cursor.string()
    if kind == GGUFValueType.ARRAY:
        item, length = GGUFValueType(cursor.number("I")), cursor.number("Q")
        if item == GGUFValueType.ARRAY:
            raise ValueError("it has an array of arrays, which llama.cpp does not read either")
        if item in _SCALARS:
            cursor.skip(length * struct.calcsize(f"<{_SCALARS[item]}"))
        else:
            for _ in range(length):
                _value(cursor, item)
        return GgufArray(length)
    code = _SCALARS[kind]
    return struct.unpack(f"<{code}", cursor.take(struct.calcsize(f"<{code}")))[0]
