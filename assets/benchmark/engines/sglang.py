"""Driver of SGLang. Flags are those of `python/sglang/srt/server_args.py` of 0.5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from assets.benchmark.engines.environments import in_environment, installed_version
from assets.benchmark.engines.failures import FLAG_ADVICE, MEMORY_ADVICE, MODEL_ADVICE, PYTORCH, Symptom, read_symptoms
from assets.benchmark.engines.options import check_flags, one_of, written
from assets.benchmark.engines.protocol import BadFlagError, EngineError, FlagValue, Launch, Option, OutOfMemoryError, UnsupportedModelError
from assets.benchmark.load.api_formats import COMPLETIONS
from assets.benchmark.load.server_counters import EngineMetrics

# docs/advanced_features/quantization.md: fp8 quantizes while loading; w8a8_int8 has its own kernels for per-channel checkpoints; GPTQ and
# AWQ are known by the checkpoint's config.json.
_QUANTIZATIONS: Mapping[str, str | None] = {"fp16": None, "fp8": "fp8", "int8": "w8a8_int8", "int4": None}

_KV_CACHE_DTYPES: Mapping[str, str | None] = {"auto": "auto", "fp8": "fp8_e4m3", "fp8_e5m2": "fp8_e5m2"}

_SYMPTOMS = (
    # python/sglang/srt/model_executor: model_runner.py (memory pools, CUDA graphs)
    Symptom(
        r"Not enough memory\. Please try (?:to increase|increasing) --mem-fraction-static|Capture cuda graph failed: .*out of memory",
        OutOfMemoryError,
        MEMORY_ADVICE,
    ),
    # python/sglang/srt/models/registry.py, python/sglang/srt/model_loader/loader.py
    Symptom(
        r"Model architectures \[.*\] are not supported|has no SGlang implementation",
        UnsupportedModelError,
        MODEL_ADVICE,
    ),
    *PYTORCH,
    # python/sglang/srt/configs/model_config.py
    Symptom(r"context_length \(\d+\) is greater than the derived context_length", BadFlagError, FLAG_ADVICE),
)


class SgLang:
    """SGLang's server."""

    name = "sglang"
    health_path = "/health"
    ready_path = "/health_generate"  # generates a token for the answer
    metrics_path: str | None = "/metrics"
    # python/sglang/srt/observability/metrics_collector.py
    metrics = EngineMetrics(
        prefix_cache_hit_tokens=("sglang:cached_tokens_total",),
        prefix_cache_query_tokens=("sglang:prompt_tokens_total",),
        preemptions=("sglang:num_retracted_requests_total",),
        queue_s=("sglang:queue_time_seconds_sum",),
        queued_requests=("sglang:queue_time_seconds_count",),
        prefill_s=('sglang:per_stage_req_latency_seconds_sum{stage="prefill_forward"}',),
        prompt_tokens=("sglang:prompt_tokens_total",),
        generated_tokens=("sglang:generation_tokens_total",),
        kv_cache_usage_share=("sglang:token_usage",),
        running_requests=("sglang:num_running_reqs",),
        waiting_requests=("sglang:num_queue_reqs",),
    )
    api = COMPLETIONS
    fixes_output_length = True
    takes_token_ids = True
    flags: Mapping[str, Option] = {
        "context_length": Option("--context-length", int),
        "mem_fraction_static": Option("--mem-fraction-static", float),
        "max_running_requests": Option("--max-running-requests", int),
        "chunked_prefill_size": Option("--chunked-prefill-size", int),
        "disable_radix_cache": Option("--disable-radix-cache", bool),
        "quantization": Option("--quantization", str),
    }

    def image(self, version: str) -> str | None:
        """https://hub.docker.com/r/lmsysorg/sglang"""
        return f"lmsysorg/sglang:v{version}"

    def version(self, environment: Path | None) -> str | None:
        """See EngineDriver."""
        return installed_version(self.name, "sglang", environment)

    def prepare_commands(self, launch: Launch) -> Sequence[Sequence[str]]:
        """None."""
        return ()

    def serve_command(self, launch: Launch) -> Sequence[str]:
        """See EngineDriver."""
        check_flags(self.name, self.flags, launch.flags)
        settings: dict[str, FlagValue | None] = {
            "context_length": launch.tokens_per_request,
            "max_running_requests": launch.parallel,
            "mem_fraction_static": launch.memory_fraction,
            "disable_radix_cache": not launch.prefix_caching,
            "quantization": one_of(self.name, "quantization", launch.quantization or "fp16", _QUANTIZATIONS),
            **launch.flags,
        }
        return [
            "python3",
            "-m",
            "sglang.launch_server",
            f"--model-path={launch.model}",
            f"--host={launch.host}",
            f"--port={launch.port}",
            f"--served-model-name={launch.served_model_name}",
            f"--tp-size={launch.tensor_parallel}",
            f"--dtype={launch.dtype}",
            f"--kv-cache-dtype={one_of(self.name, 'KV-cache type', launch.kv_cache_dtype, _KV_CACHE_DTYPES)}",
            *written(self.name, self.flags, settings),
            *(["--load-format=dummy"] if launch.dummy_weights else []),
            "--enable-metrics",
        ]

    def command(self, launch: Launch) -> Sequence[str]:
        """See EngineDriver."""
        return in_environment(self.name, launch, self.serve_command(launch))

    def variables(self, launch: Launch) -> Mapping[str, str]:
        """Nothing of the hub for a model that is here."""
        return {"HF_HUB_OFFLINE": "1"} if launch.model_is_local else {}

    def request_model(self, launch: Launch) -> str:
        """Its served name."""
        return launch.served_model_name

    def body_fields(self) -> Mapping[str, object]:
        """`ignore_eos` fixes the output length. Prefix caching is off for the whole server."""
        return {"ignore_eos": True}

    def read_failure(self, log_tail: str, exit_code: int) -> EngineError | None:
        """See EngineDriver."""
        return read_symptoms(self.name, _SYMPTOMS, log_tail, exit_code)
