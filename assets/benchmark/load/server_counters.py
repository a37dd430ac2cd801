"""What an engine counts about itself, from its Prometheus page: prefix-cache hits, preemptions, queueing, prefill and decode times.

Read before and after a load point; the difference is the load point's. Names are of vLLM (V1), SGLang, TGI and llama.cpp; an engine that
has none of them leaves everything None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from prometheus_client.parser import text_string_to_metric_families

from assets.benchmark.load.endpoint import Endpoint
from assets.benchmark.load.probe import NoAnswerError, get

METRICS_PATH = "/metrics"
METRICS_TIMEOUT_S = 5.0

# For each figure, the samples that may hold it; the first that is there is taken, summed over its labels.
_SAMPLES: Mapping[str, Sequence[str]] = {
    "prefix_cache_hit_tokens": ("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total", "sglang:cached_tokens_total"),
    "prefix_cache_query_tokens": ("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total", "sglang:prompt_tokens_total"),
    "preemptions": ("vllm:num_preemptions_total", "sglang:num_retracted_requests_total"),
    "queue_s": ("vllm:request_queue_time_seconds_sum", "sglang:queue_time_seconds_sum", "tgi_request_queue_duration_sum"),
    "queued_requests": ("vllm:request_queue_time_seconds_count", "sglang:queue_time_seconds_count", "tgi_request_queue_duration_count"),
    "prefill_s": ("vllm:request_prefill_time_seconds_sum", "llamacpp:prompt_seconds_total"),
    "decode_s": ("vllm:request_decode_time_seconds_sum", "llamacpp:tokens_predicted_seconds_total"),
    "prompt_tokens": ("vllm:prompt_tokens_total", "sglang:prompt_tokens_total", "llamacpp:prompt_tokens_total"),
    "generated_tokens": ("vllm:generation_tokens_total", "sglang:generation_tokens_total", "llamacpp:tokens_predicted_total"),
}


@dataclass(frozen=True, slots=True)
class ServerCounters:
    """Running totals; None where the engine has no such counter. Seconds are sums over requests."""

    prefix_cache_hit_tokens: float | None = None
    prefix_cache_query_tokens: float | None = None
    preemptions: float | None = None
    queue_s: float | None = None
    queued_requests: float | None = None
    prefill_s: float | None = None
    decode_s: float | None = None
    prompt_tokens: float | None = None
    generated_tokens: float | None = None

    def since(self, before: ServerCounters) -> ServerCounters:
        """The difference to an earlier reading. A counter that has gone down (the server was started anew) is None."""
        values: dict[str, float | None] = {}
        for field in fields(self):
            now, then = getattr(self, field.name), getattr(before, field.name)
            values[field.name] = now - then if now is not None and then is not None and now >= then else None
        return ServerCounters(**values)

    def known(self) -> dict[str, float]:
        """Those that the engine has."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def parse_counters(text: str) -> ServerCounters:
    """From a Prometheus page. Raises ValueError where it is none."""
    totals: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
    return ServerCounters(**{figure: next((totals[name] for name in names if name in totals), None) for figure, names in _SAMPLES.items()})


def read_counters(endpoint: Endpoint) -> ServerCounters:
    """Of a running server; empty where it has no such page."""
    try:
        return parse_counters(get(endpoint, METRICS_PATH, METRICS_TIMEOUT_S).decode("utf-8", "replace"))
    except (NoAnswerError, ValueError):
        return ServerCounters()
