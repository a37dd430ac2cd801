"""Deterministic random weights in the Hugging Face layout of a Llama model.

The numbers come from raw bits of a seeded SFC64 generator (NumPy guarantees the stream of a bit generator, not that of its
distributions) and from correctly rounded float32 arithmetic, so every machine makes the same bytes.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from assets.models.llama import LlamaSpec, hf_tensor_shapes

Array = npt.NDArray[np.float32]

# Queries and keys are large so that attention picks single tokens: the text then depends on the prompt instead of falling
# into one short loop. Logits with a standard deviation of 4 keep the rows of zeros (see visible_tokens) far below the maximum.
_QK_GAIN = 2.0
_LOGIT_STD = 4.0


def visible_tokens(tokenizer: Tokenizer) -> npt.NDArray[np.bool_]:
    """Which tokens decode to ASCII with a visible character in it.

    The others (special tokens, blanks, parts of a UTF-8 character) get output rows of zeros, so that greedy decoding never
    chooses one and each generated token reaches the client as a piece of text of its own.
    """
    special = set(tokenizer.get_added_tokens_decoder())
    visible = np.zeros(tokenizer.get_vocab_size(), dtype=np.bool_)
    for token_id in range(len(visible)):
        text = tokenizer.decode([token_id], skip_special_tokens=False)
        visible[token_id] = token_id not in special and text.isascii() and text.strip() != "" and text.replace("\n", "").isprintable()
    return visible


@dataclass(frozen=True)
class RandomWeights:
    """The tensors of one model, made on demand."""

    spec: LlamaSpec
    seed: int
    visible: npt.NDArray[np.bool_]

    def tensor(self, name: str) -> Array:
        """The tensor of this Hugging Face name, float32."""
        shape = hf_tensor_shapes(self.spec)[name]
        if len(shape) == 1:
            return np.ones(shape, dtype=np.float32)
        weights = self._uniform(name, (shape[0], shape[1]), self._std(name, shape[-1]))
        if name == "lm_head.weight":
            weights[~self.visible] = 0.0
        return weights

    def _std(self, name: str, fan_in: int) -> float:
        if name == "model.embed_tokens.weight":
            return 1.0
        if name == "lm_head.weight":
            return _LOGIT_STD / math.sqrt(fan_in)
        return (_QK_GAIN if "q_proj" in name or "k_proj" in name else 1.0) / math.sqrt(fan_in)

    def _uniform(self, name: str, shape: tuple[int, int], std: float) -> Array:
        seed = int.from_bytes(hashlib.sha256(f"{self.seed}:{name}".encode()).digest()[:16], "big")
        count = shape[0] * shape[1]
        bits = np.random.SFC64(seed).random_raw(-(-count // 4)).astype("<u8", copy=False).view("<u2")[:count]
        weights = bits.astype(np.float32)
        weights -= np.float32(32767.5)
        weights *= np.float32(std * math.sqrt(3) / 32767.5)  # a uniform distribution on [-a, a] has the deviation a / sqrt(3)
        return weights.reshape(shape)
