"""What engines count about themselves is read from their own pages, and differences are never guessed."""

from __future__ import annotations

import pytest

from assets.benchmark.engines.registry import ALL_METRICS, DRIVERS, driver_for
from assets.benchmark.load.server_counters import ServerCounters, ServerGauges, merged, parse_counters, parse_gauges

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
TGI = """# TYPE tgi_batch_inference_duration histogram
tgi_batch_inference_duration_bucket{method="prefill",le="+Inf"} 4
tgi_batch_inference_duration_sum{method="prefill"} 0.75
tgi_batch_inference_duration_count{method="prefill"} 4
tgi_batch_inference_duration_bucket{method="decode",le="+Inf"} 90
tgi_batch_inference_duration_sum{method="decode"} 2.5
tgi_batch_inference_duration_count{method="decode"} 90
# TYPE tgi_batch_current_size gauge
tgi_batch_current_size 3
# TYPE tgi_queue_size gauge
tgi_queue_size 1
"""
SGLANG = """# TYPE sglang:token_usage gauge
sglang:token_usage{model_name="m",engine_type="unified",tp_rank="0"} 0.25
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="m"} 7.0
# TYPE sglang:num_queue_reqs gauge
sglang:num_queue_reqs{model_name="m"} 2.0
# TYPE sglang:cached_tokens_total counter
sglang:cached_tokens_total{cache_source="device",model_name="m"} 10.0
sglang:cached_tokens_total{cache_source="host",model_name="m"} 5.0
# TYPE sglang:num_retracted_requests_total counter
sglang:num_retracted_requests_total{model_name="m"} 4.0
"""
TENSORRT_LLM = """# TYPE trtllm_kv_cache_utilization gauge
trtllm_kv_cache_utilization{model_name="m"} 0.5
# TYPE trtllm_request_queue_time_seconds histogram
trtllm_request_queue_time_seconds_bucket{model_name="m",le="+Inf"} 2
trtllm_request_queue_time_seconds_sum{model_name="m"} 0.5
trtllm_request_queue_time_seconds_count{model_name="m"} 2
"""
LMDEPLOY = """# TYPE lmdeploy:gpu_cache_usage_perc gauge
lmdeploy:gpu_cache_usage_perc{engine="0",model_name="m"} 0.125
# TYPE lmdeploy:request_decode_time_seconds histogram
lmdeploy:request_decode_time_seconds_bucket{engine="0",le="+Inf",model_name="m"} 2
lmdeploy:request_decode_time_seconds_sum{engine="0",model_name="m"} 3.5
lmdeploy:request_decode_time_seconds_count{engine="0",model_name="m"} 2
"""


def test_vllms_page() -> None:
    assert parse_counters(VLLM, ALL_METRICS).known() == {
        "prefix_cache_hit_tokens": 250,
        "prefix_cache_query_tokens": 1000,
        "preemptions": 2,
        "queue_s": 1.5,
        "queued_requests": 10,
    }


def test_two_engines_of_one_server_are_summed() -> None:
    counters = parse_counters(
        VLLM + VLLM.replace('engine="0"', 'engine="1"').replace("# TYPE", "# T").replace("# HELP", "# H"), ALL_METRICS
    )
    assert counters.prefix_cache_hit_tokens == 500


def test_llama_cpps_page() -> None:
    assert parse_counters(LLAMA_CPP, ALL_METRICS).known() == {"prompt_tokens": 96, "prefill_s": 0.25}


def test_a_load_point_has_the_difference_and_none_across_a_restart() -> None:
    before = ServerCounters(preemptions=2, queue_s=5)
    assert ServerCounters(preemptions=3, queue_s=1, decode_s=1).since(before).known() == {"preemptions": 1}


def test_a_page_of_something_else_is_no_page() -> None:
    with pytest.raises(ValueError, match="invalid metric name"):
        parse_counters("<html><body>Not found</body></html>", ALL_METRICS)
    assert parse_counters("", ALL_METRICS) == ServerCounters()


def test_a_name_may_choose_among_a_samples_labels() -> None:
    """TGI counts prefill and decode under one name."""
    assert parse_counters(TGI, driver_for("tgi").metrics).known() == {"prefill_s": 0.75, "decode_s": 2.5}


def test_each_drivers_table_reads_its_engines_page_and_no_others() -> None:
    pages = {"vllm": VLLM, "tgi": TGI, "lmdeploy": LMDEPLOY, "sglang": SGLANG, "tensorrt-llm": TENSORRT_LLM, "llama.cpp": LLAMA_CPP}
    for engine, page in pages.items():
        for other, driver in DRIVERS.items():
            known = {**parse_counters(page, driver.metrics).known(), **parse_gauges(page, driver.metrics).known()}
            assert bool(known) == (other in {engine, "external"}), (engine, other)
        assert parse_counters(page, ALL_METRICS) == parse_counters(page, driver_for(engine).metrics)
        assert parse_gauges(page, ALL_METRICS) == parse_gauges(page, driver_for(engine).metrics)


def test_gauges_are_sums_over_engines_but_a_share_is_their_mean() -> None:
    assert parse_gauges(SGLANG, driver_for("sglang").metrics) == ServerGauges(0.25, 7, 2)
    two = """# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.5
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.25
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3
vllm:num_requests_running{engine="1",model_name="m"} 4
"""
    assert parse_gauges(two, driver_for("vllm").metrics) == ServerGauges(0.375, 7, None)


def test_a_counter_is_the_sum_of_its_sources() -> None:
    assert parse_counters(SGLANG, ALL_METRICS).known() == {"prefix_cache_hit_tokens": 15, "preemptions": 4}


def test_no_sample_name_stands_for_two_engines() -> None:
    """Otherwise the page of one would be read as the other's."""
    for figure in merged([]).__dataclass_fields__:
        names = [name for engine, driver in DRIVERS.items() if engine != "external" for name in getattr(driver.metrics, figure)]
        assert len(names) == len(set(names)), figure
