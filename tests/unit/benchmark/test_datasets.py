"""Prompts of the user's own, in the three usual forms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from assets.benchmark.load.datasets import DatasetError, read_dataset
from assets.benchmark.load.session import Ask

TALK = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "x"},
    {"role": "user", "content": "b"},
]
SHAREGPT = [{"from": "human", "value": "c"}, {"from": "gpt", "value": "y"}, {"from": "human", "value": "d"}]


def test_all_forms_and_from_the_start_again(tmp_path: Path) -> None:
    lines = [{"prompt": "p", "output_tokens": 7}, {"messages": TALK}, {"conversations": SHAREGPT}]
    (tmp_path / "d.jsonl").write_text("\n\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    assert read_dataset(tmp_path / "d.jsonl", 4, 32, max_turns=5) == [
        (Ask("p", 7),),
        (Ask("a", 32), Ask("b", 32)),
        (Ask("c", 32), Ask("d", 32)),
        (Ask("p", 7),),
    ]
    assert read_dataset(tmp_path / "d.jsonl", 2, 32)[1] == (Ask("a", 32),)


@pytest.mark.parametrize(
    "line", ["{", "[]", "{}", '{"messages": [{"role": "system", "content": "s"}]}', '{"prompt": "p", "output_tokens": 0}']
)
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "d.jsonl").write_text(f'{{"prompt": "p"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(DatasetError, match="line 2"):
        read_dataset(tmp_path / "d.jsonl", 2, 8)


def test_no_prompts_at_all(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="has no prompts"):
        read_dataset(tmp_path / "d.jsonl", 2, 8)
    with pytest.raises(DatasetError, match="No such file"):
        read_dataset(tmp_path / "none", 2, 8)
