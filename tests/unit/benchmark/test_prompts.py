"""Prompts have the length that was asked, and no two of them a common start."""

from __future__ import annotations

from pathlib import Path

import pytest

from assets.benchmark.load.prompts import TextPrompts, TokenIdPrompts, TokenizerError
from assets.models.local.tokenizer import local_tokenizer_json


@pytest.fixture(scope="module")
def token_prompts(tmp_path_factory: pytest.TempPathFactory) -> TokenIdPrompts:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(local_tokenizer_json(), encoding="utf-8")
    return TokenIdPrompts.from_file(path)


def test_token_prompts_are_exact_ordinary_and_unique(token_prompts: TokenIdPrompts) -> None:
    prompts = token_prompts.make(50, 96, seed=1, nonce=2)
    assert {len(prompt) for prompt in prompts} == {96}
    assert {token for prompt in prompts for token in prompt} <= set(token_prompts.token_ids)
    assert len({tuple(prompt[:8]) for prompt in prompts}) == 50


def test_seed_and_nonce_make_a_run_again(token_prompts: TokenIdPrompts) -> None:
    assert token_prompts.make(3, 8, seed=1, nonce=2) == token_prompts.make(3, 8, seed=1, nonce=2)
    assert token_prompts.make(3, 8, seed=1, nonce=2) != token_prompts.make(3, 8, seed=1, nonce=3)
    assert TextPrompts().make(3, 8, seed=1, nonce=2) == TextPrompts().make(3, 8, seed=1, nonce=2)


def test_text_prompts_are_sized_by_the_servers_count() -> None:
    """A server that counts 3 tokens around the prompt and 2 a word."""
    prompts = TextPrompts.calibrated([(16, 35), (64, 131)])
    [prompt] = prompts.make(1, 203, seed=0)
    assert isinstance(prompt, str)
    assert len(prompt.split()) == 100


def test_a_file_that_is_no_tokenizer_is_a_clear_error(tmp_path: Path) -> None:
    for content in ("{}", "not json"):
        (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
        with pytest.raises(TokenizerError, match=r"tokenizer\.json is not a usable"):
            TokenIdPrompts.from_file(tmp_path / "tokenizer.json")
    with pytest.raises(TokenizerError, match="cannot read"):
        TokenIdPrompts.from_file(tmp_path / "missing.json")
