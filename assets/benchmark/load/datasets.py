"""Prompts of the user's own, from a JSONL file: a line a request or a conversation.

`{"prompt": "..."}`, `{"messages": [{"role": "user", "content": "..."}, ...]}`, or ShareGPT's `{"conversations": [{"from": "human",
"value": "..."}, ...]}`; `output_tokens` beside it overrides the answer's length. Of a conversation only what the person says is sent: the
answers are the model's own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from assets.benchmark.load.session import Ask, Conversation

_PERSON = {"user", "human"}


class DatasetError(ValueError):
    """A dataset cannot be read; the message says where and why."""


def read_dataset(path: Path, count: int, output_tokens: int, max_turns: int = 1) -> list[Conversation]:
    """`count` conversations of at most `max_turns` turns in the file's order, from its start again where it has fewer.

    Raises DatasetError.
    """
    conversations: list[Conversation] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip() and len(conversations) < count:
                    conversations.append(_conversation(line, f"{path}, line {number}", output_tokens, max_turns))
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot read the dataset {path}: {getattr(error, 'strerror', None) or 'it is not text'}") from error
    if not conversations:
        raise DatasetError(f"{path} has no prompts")
    return [conversations[index % len(conversations)] for index in range(count)]


def _conversation(line: str, where: str, output_tokens: int, max_turns: int) -> Conversation:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise DatasetError(f"{where} is not JSON: {error}") from error
    prompts = _prompts(entry) if isinstance(entry, dict) else []
    if not prompts:
        raise DatasetError(f"{where} has none of `prompt`, `messages` and `conversations` with something that a person says")
    asked = entry.get("output_tokens", output_tokens)
    if not isinstance(asked, int) or isinstance(asked, bool) or asked < 1:
        raise DatasetError(f"{where}: `output_tokens` must be a whole number of at least 1, not {asked!r}")
    return tuple(Ask(prompt, asked) for prompt in prompts[:max_turns])


def _prompts(entry: dict[str, Any]) -> list[str]:
    if isinstance(entry.get("prompt"), str):
        return [entry["prompt"]]
    for key, role, content in (("messages", "role", "content"), ("conversations", "from", "value")):
        said = entry.get(key)
        if isinstance(said, list):
            return [m[content] for m in said if isinstance(m, dict) and m.get(role) in _PERSON and isinstance(m.get(content), str)]
    return []
