"""Prompts of a given length in tokens, each of them unique.

A repeated prompt, or a common start, would be answered from an engine's prefix cache and measure that instead. Prompts are random from
their first token on; `seed` and `nonce` make them, so a run can be made again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from assets.benchmark.load.completions import Prompt

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


class TokenizerError(ValueError):
    """The tokenizer file cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class TokenIdPrompts:
    """Arrays of random token ids: exact lengths for engines that take ids in `prompt` (llama.cpp, vLLM)."""

    token_ids: tuple[int, ...]

    @classmethod
    def from_file(cls, path: Path) -> TokenIdPrompts:
        """The ordinary (not special) tokens of a `tokenizer.json`. Raises TokenizerError."""
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
        return cls(ids)

    def make(self, count: int, tokens: int, seed: int, nonce: int = 0) -> list[Prompt]:
        """`count` prompts of exactly `tokens` tokens."""
        random = np.random.default_rng([seed, nonce, tokens])
        ids = np.asarray(self.token_ids)
        prompts: list[Prompt] = [row.tolist() for row in ids[random.integers(0, len(ids), size=(count, tokens))]]
        return prompts


@dataclass(frozen=True, slots=True)
class TextPrompts:
    """Random words, for servers whose tokenizer is not at hand. `tokens_per_word` and `overhead_tokens` come from `calibrated`."""

    tokens_per_word: float = 1.0
    overhead_tokens: float = 0.0

    @classmethod
    def calibrated(cls, probes: Sequence[tuple[int, int]]) -> TextPrompts:
        """From (words sent, prompt tokens that the server counted) of at least two probes of different length: a straight line."""
        words = np.asarray([probe[0] for probe in probes], dtype=float)
        tokens = np.asarray([probe[1] for probe in probes], dtype=float)
        slope, intercept = np.polyfit(words, tokens, 1)
        return cls(max(float(slope), 1e-3), float(intercept))

    def make(self, count: int, tokens: int, seed: int, nonce: int = 0) -> list[Prompt]:
        """`count` prompts of about `tokens` tokens; what they really were is in the server's usage."""
        random = np.random.default_rng([seed, nonce, tokens])
        words = max(1, round((tokens - self.overhead_tokens) / self.tokens_per_word))
        return [" ".join(WORDS[i] for i in random.integers(0, len(WORDS), size=words)) for _ in range(count)]
