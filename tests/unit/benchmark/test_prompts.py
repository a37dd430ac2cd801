"""Prompts have the length that was asked, and no two of them a common start."""

from __future__ import annotations

from pathlib import Path

import pytest

from assets.benchmark.load.prompts import ModelTokenizer, TextPrompts, TokenIdPrompts, TokenizerError
from assets.models.local.tokenizer import local_tokenizer_json


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ModelTokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(local_tokenizer_json(), encoding="utf-8")
    return ModelTokenizer.from_file(path.parent)


def test_token_prompts_are_exact_ordinary_and_unique(tokenizer: ModelTokenizer) -> None:
    prompts = TokenIdPrompts(tokenizer.ordinary_ids).make([96] * 50, seed=1, nonce=2)
    assert {len(prompt) for prompt in prompts} == {96}
    assert {token for prompt in prompts for token in prompt} <= set(tokenizer.ordinary_ids)
    assert len({tuple(prompt[:8]) for prompt in prompts}) == 50


def test_text_prompts_of_a_tokenizers_words_are_exact(tokenizer: ModelTokenizer) -> None:
    """Counted again by the tokenizer itself, whole prompts at once."""
    prompts = TextPrompts(tokenizer.words()).make([1, 7, 300], seed=1, nonce=2)
    assert [tokenizer.count(prompt) for prompt in prompts if isinstance(prompt, str)] == [1, 7, 300]


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_shared_prefix_is_shared_and_the_rest_is_not(tokenizer: ModelTokenizer, share: float) -> None:
    prompts = TokenIdPrompts(tokenizer.ordinary_ids).make([64] * 20, seed=1, nonce=2, shared_prefix_share=share)
    common = round(share * 64)
    assert len({tuple(prompt[:common]) for prompt in prompts}) == 1
    assert len({tuple(prompt[common : common + 8]) for prompt in prompts}) == (20 if share < 1 else 1)


def test_seed_and_nonce_make_a_run_again() -> None:
    source = TokenIdPrompts(tuple(range(100)))
    assert source.make([8] * 3, seed=1, nonce=2) == source.make([8] * 3, seed=1, nonce=2)
    assert source.make([8] * 3, seed=1, nonce=2) != source.make([8] * 3, seed=1, nonce=3)
    assert TextPrompts().make([8] * 3, seed=1, nonce=2) == TextPrompts().make([8] * 3, seed=1, nonce=2)


def test_text_prompts_are_sized_by_the_servers_count() -> None:
    """A server that counts 3 tokens around the prompt and 2 a word."""
    [prompt] = TextPrompts().calibrated([(16, 35), (64, 131)]).make([203], seed=0)
    assert isinstance(prompt, str)
    assert len(prompt.split()) == 100


def test_a_server_that_does_not_count_is_found_out() -> None:
    with pytest.raises(TokenizerError, match="does not count"):
        TextPrompts().calibrated([(16, 0), (64, 0)])


def test_a_file_that_is_no_tokenizer_is_a_clear_error(tmp_path: Path) -> None:
    for content in ("{}", "not json"):
        (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
        with pytest.raises(TokenizerError, match=r"tokenizer\.json is not a usable"):
            ModelTokenizer.from_file(tmp_path / "tokenizer.json")
    with pytest.raises(TokenizerError, match="cannot read"):
        ModelTokenizer.from_file(tmp_path / "missing.json")
