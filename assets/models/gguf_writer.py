"""Writes a GGUF file of a Llama-family model, tensor by tensor, so that memory stays at one tensor whatever the model's size."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import gguf
import numpy as np
from gguf.quants import quant_shape_to_byte_shape, quantize

from assets.models.errors import InvalidModelError
from assets.models.gguf_vocabulary import GgufVocabulary
from assets.models.llama import LlamaSpec, TensorSource
from assets.models.progress import Progress, no_progress

GgufQuantization = Literal["f16", "q8_0", "q4_0"]
GGUF_QUANTIZATIONS: tuple[GgufQuantization, ...] = ("f16", "q8_0", "q4_0")

_F32 = gguf.GGMLQuantizationType.F32
_TYPES = {
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (gguf.GGMLQuantizationType.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
}


def write_gguf(
    path: Path,
    spec: LlamaSpec,
    vocabulary: GgufVocabulary,
    tensors: Iterable[TensorSource],
    *,
    quantization: GgufQuantization,
    progress: Progress = no_progress,
) -> None:
    """Write `path`. Matrices are stored in `quantization`, vectors in float32.

    In Q4_0 files the output matrix stays in Q8_0: llama.cpp's own quantizer keeps it at 6 bits, because 4 bits there cost quality.

    Raises:
        InvalidModelError: rows of a matrix are no multiple of 32, the block size of Q8_0 and Q4_0.
        OSError: the file cannot be written.
    """
    writer = gguf.GGUFWriter(path, spec.architecture)
    try:
        _add_metadata(writer, spec, quantization)
        _add_vocabulary(writer, vocabulary)
        plan = [(tensor, _stored_type(tensor, spec, quantization)) for tensor in tensors]
        sizes = []
        for tensor, kind in plan:
            sizes.append(_add_info(writer, tensor, kind))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        done_bytes, total_bytes = 0, sum(sizes)
        for (tensor, kind), size_bytes in zip(plan, sizes, strict=True):
            numbers = tensor.load()
            if numbers.shape != tensor.shape:
                raise InvalidModelError(f"tensor {tensor.name} has the shape {numbers.shape} instead of {tensor.shape}")
            writer.write_tensor_data(np.ascontiguousarray(quantize(numbers, kind)))
            done_bytes += size_bytes
            progress(f"{spec.name} {quantization}", done_bytes, total_bytes)
    finally:
        writer.close()


def _stored_type(tensor: TensorSource, spec: LlamaSpec, quantization: GgufQuantization) -> gguf.GGMLQuantizationType:
    if len(tensor.shape) == 1:
        return _F32
    output = "token_embd.weight" if spec.tied else "output.weight"
    kind = gguf.GGMLQuantizationType.Q8_0 if quantization == "q4_0" and tensor.name == output else _TYPES[quantization][0]
    block = gguf.GGML_QUANT_SIZES[kind][0]
    if tensor.shape[-1] % block:
        raise InvalidModelError(
            f"{spec.name} cannot be stored as {quantization}: rows of {tensor.name} have {tensor.shape[-1]} values, no multiple of {block}"
        )
    return kind


def _add_info(writer: gguf.GGUFWriter, tensor: TensorSource, kind: gguf.GGMLQuantizationType) -> int:
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    size_bytes = math.prod(tensor.shape) // block * block_bytes
    if block == 1:
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size_bytes, raw_dtype=kind)
    else:
        writer.add_tensor_info(tensor.name, quant_shape_to_byte_shape(tensor.shape, kind), np.dtype(np.uint8), size_bytes, raw_dtype=kind)
    return size_bytes


def _add_metadata(writer: gguf.GGUFWriter, spec: LlamaSpec, quantization: GgufQuantization) -> None:
    writer.add_type("model")
    writer.add_name(spec.name)
    if spec.licence:
        writer.add_license(spec.licence)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(_TYPES[quantization][1])
    writer.add_context_length(spec.context)
    writer.add_embedding_length(spec.hidden_size)
    writer.add_block_count(spec.layers)
    writer.add_feed_forward_length(spec.intermediate_size)
    writer.add_head_count(spec.heads)
    writer.add_head_count_kv(spec.kv_heads)
    writer.add_key_length(spec.head_dim)
    writer.add_value_length(spec.head_dim)
    writer.add_rope_dimension_count(spec.head_dim)
    writer.add_rope_freq_base(spec.rope_theta)
    writer.add_layer_norm_rms_eps(spec.rms_eps)
    writer.add_vocab_size(spec.vocab_size)
    scaling = spec.rope_scaling
    if scaling is not None and scaling.kind != "llama3":
        kinds = {"linear": gguf.RopeScalingType.LINEAR, "yarn": gguf.RopeScalingType.YARN}
        writer.add_rope_scaling_type(kinds[scaling.kind])
        writer.add_rope_scaling_factor(scaling.factor)
        if scaling.original_context:
            writer.add_rope_scaling_orig_ctx_len(scaling.original_context)


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: GgufVocabulary) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    if vocabulary.pre is not None:
        writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
    for add, token_id in (
        (writer.add_bos_token_id, vocabulary.bos_id),
        (writer.add_eos_token_id, vocabulary.eos_id),
        (writer.add_unk_token_id, vocabulary.unk_id),
        (writer.add_eot_token_id, vocabulary.end_of_turn_id),
    ):
        if token_id is not None:
            add(token_id)
    writer.add_add_bos_token(vocabulary.add_bos)
    if vocabulary.chat_template is not None:
        writer.add_chat_template(vocabulary.chat_template)
