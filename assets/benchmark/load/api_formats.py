"""The HTTP APIs that stream tokens, as far as a load generator must know them: where a request goes, and its body.

What comes back is read by `decode`, which needs no telling: the events of the three differ.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

# Text, or token ids where the server takes them.
Prompt = str | Sequence[int]
# Stands for an answer that is not known yet. No prompt has it: it is not a character of any text.
ANSWER = "\ufdd0"
_ESCAPED_ANSWER = json.dumps(ANSWER)[1:-1].encode()


class ApiFormatError(ValueError):
    """The API does not take what it was given; the message says why."""


@dataclass(frozen=True, slots=True)
class ApiFormat:
    """`fields(model, prompts, output_tokens)` gives a streaming request for a conversation: the person's prompts, with ANSWER between them.

    `fixed_length` holds the fields that keep answers from ending early, which not every server knows. `nested` says where a request's extra
    fields go: into the object of this name, or to the top.
    """

    name: str
    path: str
    fields: Callable[[str, Sequence[Prompt], int], dict[str, object]]
    fixed_length: Mapping[str, object]
    takes_token_ids: bool = False
    nested: str | None = None

    def pieces(self, model: str, prompts: Sequence[Prompt], output_tokens: int, extra: Mapping[str, object]) -> tuple[bytes, ...]:
        """The body as the pieces between the answers that are known only when the request is sent. Raises ApiFormatError."""
        fields = self.fields(model, prompts, output_tokens)
        target = fields if self.nested is None else fields[self.nested]
        if not isinstance(target, dict):
            raise TypeError(f"{self.nested} holds no fields")
        target.update(extra)
        return tuple(json.dumps(fields, separators=(",", ":")).encode().split(_ESCAPED_ANSWER))


def _completions(model: str, prompts: Sequence[Prompt], output_tokens: int) -> dict[str, object]:
    given = list(prompts[0]) if len(prompts) == 1 and not isinstance(prompts[0], str) else ANSWER.join(_texts(prompts))
    return {"model": model, "prompt": given, "max_tokens": output_tokens, **_OPENAI_STREAM}


def _chat(model: str, prompts: Sequence[Prompt], output_tokens: int) -> dict[str, object]:
    messages: list[dict[str, str]] = []
    for text in _texts(prompts):
        messages += [{"role": "assistant", "content": ANSWER}] if messages else []
        messages.append({"role": "user", "content": text})
    return {"model": model, "messages": messages, "max_tokens": output_tokens, **_OPENAI_STREAM}


def _tgi(_: str, prompts: Sequence[Prompt], output_tokens: int) -> dict[str, object]:
    return {
        "inputs": ANSWER.join(_texts(prompts)),
        "parameters": {"max_new_tokens": output_tokens, "details": True, "do_sample": False},
    }


def _texts(prompts: Sequence[Prompt]) -> list[str]:
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    if len(texts) < len(prompts):
        raise ApiFormatError("only single prompts of the completions API may be token ids: others must be text")
    return texts


_OPENAI_STREAM: Mapping[str, object] = {"temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
# OpenAI's own API does not know it; vLLM, llama.cpp, SGLang and LMDeploy do.
_IGNORE_EOS: Mapping[str, object] = {"ignore_eos": True}

COMPLETIONS = ApiFormat("completions", "/v1/completions", _completions, _IGNORE_EOS, takes_token_ids=True)
CHAT = ApiFormat("chat", "/v1/chat/completions", _chat, _IGNORE_EOS)
TGI = ApiFormat("tgi", "/generate_stream", _tgi, {"ignore_eos_token": True}, nested="parameters")

API_FORMATS: Mapping[str, ApiFormat] = {api.name: api for api in (COMPLETIONS, CHAT, TGI)}
