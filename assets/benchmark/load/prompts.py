"""Prompts of a given length in tokens, each of them unique.

A repeated prompt, or a common start, would be answered from an engine's prefix cache and measure that instead. Prompts are random from
their first token on; `seed` and `nonce` make them, so a run can be made again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from assets.benchmark.load.api_formats import Prompt

# Plain, frequent, lower-case English words: most tokenizers give each of them one token.
# fmt: off
WORDS = (
    "time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school", "state", "family", "student",
    "group", "country", "problem", "hand", "part", "place", "case", "week", "company", "system", "program", "question", "work",
    "government", "number", "night", "point", "home", "water", "room", "mother", "area", "money", "story", "fact", "month", "lot",
    "right", "study", "book", "eye", "job", "word", "business", "issue", "side", "kind", "head", "house", "service", "friend", "father",
    "power", "hour", "game", "line", "end", "member", "law", "car", "city", "community", "name", "president", "team", "minute", "idea",
    "body", "information", "back", "parent", "face", "others", "level", "office", "door", "health", "person", "art", "war", "history",
    "party", "result", "change", "morning", "reason", "research", "girl", "guy", "moment", "air", "teacher", "force", "education",
)
# fmt: on


# No tokenizer puts more than two plain words into one token.
MIN_TOKENS_PER_WORD = 0.5


class TokenizerError(ValueError):
    """The tokenizer file cannot be used; the message says why."""


class PromptSource(Protocol):
    """What makes prompts."""

    def make(self, lengths: Sequence[int], seed: int, nonce: int = 0, shared_prefix_share: float = 0.0) -> list[Prompt]:
        """A prompt of each length in tokens. The first `shared_prefix_share` of each is the same in all of them, the rest in none."""


@dataclass(frozen=True, slots=True)
class ModelTokenizer:
    """A model's own tokenizer, from its `tokenizer.json`."""

    tokenizer: Tokenizer
    ordinary_ids: tuple[int, ...]

    @classmethod
    def from_file(cls, path: Path) -> ModelTokenizer:
        """From the file, or the folder that holds it. Raises TokenizerError."""
        path = path / "tokenizer.json" if path.is_dir() else path
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            tokenizer = Tokenizer.from_str(json.dumps(document))
        except OSError as error:
            raise TokenizerError(f"cannot read the tokenizer {path}: {error.strerror}") from error
        except Exception as error:  # the tokenizers library raises bare Exception for any file it cannot use
            raise TokenizerError(f"{path} is not a usable tokenizer.json: {error}") from error
        special = {token["id"] for token in document.get("added_tokens", []) if token.get("special")}
        ids = tuple(sorted(set(tokenizer.get_vocab(with_added_tokens=False).values()) - special))
        if not ids:
            raise TokenizerError(f"{path} has no ordinary tokens")
        return cls(tokenizer, ids)

    def count(self, text: str) -> int:
        """Tokens of a text, without those that a model puts around it."""
        return len(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def words(self) -> tuple[str, ...]:
        """Words that are one token each, wherever they stand between spaces. Raises TokenizerError when there are none."""
        decoded = {self.tokenizer.decode([token]).strip() for token in self.ordinary_ids}
        candidates = sorted(word for word in decoded if word.isascii() and word.isalpha() and word.islower() and len(word) > 1)
        words = tuple(word for word in candidates if self.count(f"{word} {word} {word}") == 3)
        if not words:
            raise TokenizerError("the tokenizer has no words of one token: give prompts of your own with --dataset")
        return words


@dataclass(frozen=True, slots=True)
class TokenIdPrompts:
    """Arrays of random token ids: exact lengths for engines that take ids in `prompt` (llama.cpp, vLLM)."""

    token_ids: tuple[int, ...]

    def make(self, lengths: Sequence[int], seed: int, nonce: int = 0, shared_prefix_share: float = 0.0) -> list[Prompt]:
        """See PromptSource. Lengths are exact."""
        ids = np.asarray(self.token_ids)
        return [ids[choice].tolist() for choice in _choices(len(ids), lengths, (seed, nonce), shared_prefix_share)]


@dataclass(frozen=True, slots=True)
class TextPrompts:
    """Random words, for APIs that take text.

    With the words of a tokenizer (`ModelTokenizer.words`) each is one token; without one, `tokens_per_word` comes from `calibrated`.
    `overhead_tokens` is what the server puts around a prompt: a first token, a chat template.
    """

    words: tuple[str, ...] = WORDS
    tokens_per_word: float = 1.0
    overhead_tokens: float = 0.0

    def calibrated(self, probes: Sequence[tuple[int, int]]) -> TextPrompts:
        """From (words sent, prompt tokens that the server counted) of at least two probes of different length: a straight line.

        Raises TokenizerError where the counts cannot be right.
        """
        words = np.asarray([probe[0] for probe in probes], dtype=float)
        tokens = np.asarray([probe[1] for probe in probes], dtype=float)
        slope, intercept = np.polyfit(words, tokens, 1)
        if slope < MIN_TOKENS_PER_WORD:
            raise TokenizerError(f"the server does not count the tokens of a prompt: it says {tokens[0]:g} for {words[0]:g} words")
        return TextPrompts(self.words, float(slope), float(intercept))

    def corrected(self, asked_tokens: float, counted_tokens: float) -> TextPrompts:
        """From prompts that were to have `asked_tokens` on average and had `counted_tokens`."""
        share = (counted_tokens - self.overhead_tokens) / max(asked_tokens - self.overhead_tokens, 1.0)
        return TextPrompts(self.words, max(MIN_TOKENS_PER_WORD, self.tokens_per_word * share), self.overhead_tokens)

    def make(self, lengths: Sequence[int], seed: int, nonce: int = 0, shared_prefix_share: float = 0.0) -> list[Prompt]:
        """See PromptSource. What the lengths really were is in the server's usage."""
        counts = [max(1, round((length - self.overhead_tokens) / self.tokens_per_word)) for length in lengths]
        choices = _choices(len(self.words), counts, (seed, nonce), shared_prefix_share)
        return [" ".join(self.words[i] for i in choice) for choice in choices]


def _choices(size: int, lengths: Sequence[int], seeds: tuple[int, ...], shared_prefix_share: float) -> list[npt.NDArray[np.intp]]:
    """Random indices below `size`, an array of each length, with a common start if asked."""
    random = np.random.default_rng([*seeds, *lengths[:1]])
    prefix = random.integers(0, size, size=round(shared_prefix_share * max(lengths, default=0)))
    shared = [round(shared_prefix_share * length) for length in lengths]
    return [
        np.concatenate((prefix[:common], random.integers(0, size, size=length - common))).astype(np.intp)
        for common, length in zip(shared, lengths, strict=True)
    ]
