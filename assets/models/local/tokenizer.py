"""A byte-level BPE tokenizer, trained on the project's own corpus. Deterministic: the same corpus gives the same file."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

CORPUS_PATH = Path(__file__).with_name("corpus.txt")
VOCAB_SIZE = 2048
BOS, EOS, UNK, END_OF_TURN = "<s>", "</s>", "<unk>", "<|end|>"
SPECIAL_TOKENS = (UNK, BOS, EOS, END_OF_TURN, "<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train_tokenizer(corpus: str, vocab_size: int = VOCAB_SIZE) -> Tokenizer:
    """Train on `corpus`. The pre-tokenizer is GPT-2's, which llama.cpp knows as `gpt-2`, so that both cut text alike."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=1,
        show_progress=False,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator([corpus], trainer=trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(f"the corpus gives {tokenizer.get_vocab_size()} tokens instead of {vocab_size}: it is too short")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return tokenizer


@cache
def local_tokenizer_json() -> str:
    """`tokenizer.json` of the local models, as text."""
    return train_tokenizer(CORPUS_PATH.read_text(encoding="utf-8")).to_str(pretty=True) + "\n"
