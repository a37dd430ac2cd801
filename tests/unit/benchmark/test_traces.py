"""Published traces are replayed as they were: instants, lengths, common prefixes."""

from __future__ import annotations

from pathlib import Path

import pytest

from assets.benchmark.load.traces import TraceError, read_trace, trace_prompts

# The first rows of the published files, as figures: Azure LLM inference trace 2023 (conversation), and Mooncake's conversation trace.
AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2224670,879,55
"""
MOONCAKE = """{"timestamp": 27482, "input_length": 1100, "output_length": 52, "hash_ids": [0, 1, 2]}
{"timestamp": 30535, "input_length": 1300, "output_length": 26, "hash_ids": [0, 1, 3]}
"""


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace"


def test_azures_trace(trace: Path) -> None:
    trace.write_text(AZURE, encoding="utf-8")
    requests = read_trace(trace)
    assert [(r.input_tokens, r.output_tokens) for r in requests] == [(374, 44), (396, 109), (879, 55)]
    assert [r.at_s for r in requests] == pytest.approx([0, 4.314579, 4.541877])
    assert [r.at_s for r in read_trace(trace, speed=2)] == pytest.approx([0, 4.314579 / 2, 4.541877 / 2])
    assert len(read_trace(trace, limit=2)) == 2
    assert [r.input_tokens for r in read_trace(trace, max_tokens=600)] == [374, 396]


def test_mooncakes_trace_and_its_common_blocks(trace: Path) -> None:
    """Two requests share their first two blocks of 512 tokens, and nothing after them."""
    trace.write_text(MOONCAKE, encoding="utf-8")
    requests = read_trace(trace)
    assert [r.at_s for r in requests] == pytest.approx([0, 3.053])
    first, second = (list(prompt) for prompt in trace_prompts(requests, range(1000), seed=1, nonce=2))
    assert (len(first), len(second)) == (1100, 1300)
    assert first[:1024] == second[:1024]
    assert first[1024:1100] != second[1024:1100]
    other_run = trace_prompts(requests, range(1000), seed=1, nonce=3)
    assert list(other_run[0])[:8] != first[:8]


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "{}\n", AZURE.replace("374", "many"), MOONCAKE.replace("27482", '"soon"')])
def test_what_is_no_trace_is_a_clear_error(trace: Path, content: str) -> None:
    trace.write_text(content, encoding="utf-8")
    with pytest.raises(TraceError, match=str(trace)):
        read_trace(trace)


def test_a_trace_that_nothing_fits_is_told(trace: Path) -> None:
    trace.write_text(AZURE, encoding="utf-8")
    with pytest.raises(TraceError, match="at most 10 tokens"):
        read_trace(trace, max_tokens=10)
    with pytest.raises(TraceError, match="No such file"):
        read_trace(trace.with_name("none"))
