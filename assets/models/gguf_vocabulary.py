"""From `tokenizer.json` to the vocabulary that a GGUF file carries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from assets.models.errors import InvalidModelError

# gguf.TokenType
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6

# The regular expression of a Split pre-tokenizer, and llama.cpp's name of the tokenizer family that uses it.
_LLAMA3_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2_PATTERN = _LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
_PRE_BY_PATTERN = {_LLAMA3_PATTERN: "llama-bpe", _QWEN2_PATTERN: "qwen2"}


@dataclass(frozen=True)
class GgufVocabulary:
    """What `tokenizer.ggml.*` holds. `model` is `gpt2` (byte-level BPE) or `llama` (SentencePiece-like, with byte fallback)."""

    model: str
    tokens: list[str]
    types: list[int]
    add_bos: bool
    pre: str | None = None
    merges: list[str] | None = None
    scores: list[float] | None = None
    bos_id: int | None = None
    eos_id: int | None = None
    unk_id: int | None = None
    end_of_turn_id: int | None = None
    chat_template: str | None = None


def read_vocabulary(tokenizer_json: str, vocab_size: int, config: Mapping[str, Any], end_of_turn: str | None = None) -> GgufVocabulary:
    """The vocabulary of a BPE `tokenizer.json`.

    Args:
        tokenizer_json: the file's text.
        vocab_size: rows of the embedding; missing ids are filled with unused tokens.
        config: `tokenizer_config.json`: bos_token, eos_token, unk_token, chat_template, add_bos_token.
        end_of_turn: the token that ends a turn of a chat, where it is not the end-of-sequence token.

    Raises:
        InvalidModelError: the tokenizer is not a BPE of a family that llama.cpp knows.
    """
    try:
        document = json.loads(tokenizer_json)
        model = document["model"]
        vocab: dict[str, int] = model["vocab"]
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidModelError(
            "tokenizer.json is damaged or not a BPE tokenizer: Dyno converts BPE tokenizers (use a GGUF file of this model instead)"
        ) from error
    if max(vocab.values()) >= vocab_size:
        raise InvalidModelError(f"tokenizer.json has token ids up to {max(vocab.values())}, but the model has only {vocab_size} rows")
    byte_fallback = bool(model.get("byte_fallback"))
    pre = None if byte_fallback else _pre_tokenizer(document)

    tokens = [f"[PAD{index}]" for index in range(vocab_size)]
    types = [_USER_DEFINED] * vocab_size  # unused ids, as llama.cpp's converter marks them
    for token, index in vocab.items():
        tokens[index] = token
        types[index] = _BYTE if byte_fallback and _is_byte(token) else _NORMAL
    for added in document.get("added_tokens", []):
        if added["id"] < vocab_size:
            tokens[added["id"]] = added["content"]
            types[added["id"]] = _CONTROL if added["special"] else _USER_DEFINED
    ids = {token: index for index, token in enumerate(tokens)}
    unk_id = ids.get(_token_text(config.get("unk_token")) or str(model.get("unk_token")))
    if unk_id is not None and byte_fallback:
        types[unk_id] = _UNKNOWN
    bos_id = ids.get(_token_text(config.get("bos_token")) or "")
    template = config.get("chat_template")
    return GgufVocabulary(
        model="llama" if byte_fallback else "gpt2",
        tokens=tokens,
        types=types,
        add_bos=bos_id is not None and bool(config.get("add_bos_token", _template_adds(document, bos_id))),
        pre=pre,
        merges=None if byte_fallback else merges,
        scores=_scores(tokens, merges) if byte_fallback else None,
        bos_id=bos_id,
        eos_id=ids.get(_token_text(config.get("eos_token")) or ""),
        unk_id=unk_id,
        end_of_turn_id=ids.get(end_of_turn or ""),
        chat_template=template if isinstance(template, str) else None,
    )


def _pre_tokenizer(document: Mapping[str, Any]) -> str:
    step = document.get("pre_tokenizer") or {}
    steps = step.get("pretokenizers", [step])
    kinds = [str(item.get("type")) for item in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Split", "ByteLevel"]:
        pattern = (steps[0].get("pattern") or {}).get("Regex", "")
        if pattern in _PRE_BY_PATTERN:
            return _PRE_BY_PATTERN[pattern]
    raise InvalidModelError(
        f"tokenizer.json splits text in a way that Dyno does not convert ({' + '.join(kinds)}): use a GGUF file of this model instead"
    )


def _scores(tokens: list[str], merges: list[str]) -> list[float]:
    """SentencePiece scores that give the order of the merges back: the earlier a merge, the higher its score."""
    rank = {left + right: position for position, (left, right) in reversed([*enumerate(m.split(" ", 1) for m in merges)])}
    return [float(-rank.get(token, len(merges))) for token in tokens]


def _template_adds(document: Mapping[str, Any], bos_id: int | None) -> bool:
    """Whether the post-processor puts the begin-of-sequence token in front."""
    processor = document.get("post_processor") or {}
    for step in processor.get("processors", [processor]):
        for token in (step.get("special_tokens") or {}).values():
            if isinstance(token, dict) and bos_id in token.get("ids", []):
                return True
    return False


def _token_text(token: object) -> str | None:
    """A special token in `tokenizer_config.json` is a string or an object with `content`."""
    if isinstance(token, Mapping):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")
