"""What engines count about themselves is read from their own pages, and differences are never guessed."""

from __future__ import annotations

import pytest

from assets.benchmark.load.server_counters import ServerCounters, parse_counters

# Lines as the engines write them, figures ours.
VLLM = """# HELP vllm:prefix_cache_queries_total Prefix cache queries, in terms of number of queried tokens.
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 1000.0
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 250.0
# TYPE vllm:num_preemptions_total counter
vllm:num_preemptions_total{engine="0",model_name="m"} 2.0
# TYPE vllm:request_queue_time_seconds histogram
vllm:request_queue_time_seconds_bucket{engine="0",le="+Inf",model_name="m"} 10.0
vllm:request_queue_time_seconds_count{engine="0",model_name="m"} 10.0
vllm:request_queue_time_seconds_sum{engine="0",model_name="m"} 1.5
"""
LLAMA_CPP = """# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 96
# HELP llamacpp:prompt_seconds_total Prompt process time
# TYPE llamacpp:prompt_seconds_total counter
llamacpp:prompt_seconds_total 0.25
"""


def test_vllms_page() -> None:
    assert parse_counters(VLLM).known() == {
        "prefix_cache_hit_tokens": 250,
        "prefix_cache_query_tokens": 1000,
        "preemptions": 2,
        "queue_s": 1.5,
        "queued_requests": 10,
    }


def test_two_engines_of_one_server_are_summed() -> None:
    counters = parse_counters(VLLM + VLLM.replace('engine="0"', 'engine="1"').replace("# TYPE", "# T").replace("# HELP", "# H"))
    assert counters.prefix_cache_hit_tokens == 500


def test_llama_cpps_page() -> None:
    assert parse_counters(LLAMA_CPP).known() == {"prompt_tokens": 96, "prefill_s": 0.25}


def test_a_load_point_has_the_difference_and_none_across_a_restart() -> None:
    before = ServerCounters(preemptions=2, queue_s=5)
    assert ServerCounters(preemptions=3, queue_s=1, decode_s=1).since(before).known() == {"preemptions": 1}


def test_a_page_of_something_else_is_no_page() -> None:
    with pytest.raises(ValueError, match="invalid metric name"):
        parse_counters("<html><body>Not found</body></html>")
    assert parse_counters("") == ServerCounters()
