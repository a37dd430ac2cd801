"""Driver of vLLM. Flags, metrics and messages are those of vLLM 0.32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from assets.benchmark.engines.environments import in_environment, installed_version
from assets.benchmark.engines.failures import (
    DRIVER_ADVICE,
    FLAG_ADVICE,
    MEMORY_ADVICE,
    MODEL_ADVICE,
    PYTORCH,
    WEIGHTS_ADVICE,
    Symptom,
    read_symptoms,
)
from assets.benchmark.engines.options import check_flags, one_of, written
from assets.benchmark.engines.protocol import (
    BadFlagError,
    CorruptWeightsError,
    DriverError,
    EngineError,
    FlagValue,
    Launch,
    Option,
    OutOfMemoryError,
    UnsupportedModelError,
)
from assets.benchmark.load.api_formats import COMPLETIONS
from assets.benchmark.load.server_counters import EngineMetrics

# fp8 quantizes 16-bit weights while loading and takes FP8 checkpoints as they are; W8A8 and W4A16 (GPTQ, AWQ) come as checkpoints
# whose config.json says what they are (vllm/model_executor/layers/quantization).
_QUANTIZATIONS: Mapping[str, str | None] = {"fp16": None, "fp8": "fp8", "int8": None, "int4": None}

_KV_CACHE_DTYPES: Mapping[str, str | None] = {"auto": "auto", "fp8": "fp8", "fp8_e5m2": "fp8_e5m2"}

_SYMPTOMS = (
    Symptom(
        # vllm/v1/worker/utils.py, vllm/v1/core/kv_cache_utils.py
        r"is less than desired GPU memory utilization|No available memory for the cache blocks|larger than the available KV cache memory",
        OutOfMemoryError,
        MEMORY_ADVICE,
    ),
    # vllm/model_executor/models/registry.py, vllm/config/vllm.py
    Symptom(
        r"Model architectures \[.*\] (?:are not supported|failed)|has no vLLM implementation"
        r"|is only supported on GPUs with compute capability",
        UnsupportedModelError,
        MODEL_ADVICE,
    ),
    # vllm/model_executor/model_loader/default_loader.py
    Symptom(r"Cannot find any model weights with|Following weights were not initialized", CorruptWeightsError, WEIGHTS_ADVICE),
    # vllm/config/device.py: neither a GPU nor a build for this CPU
    Symptom(r"Failed to infer device type", DriverError, DRIVER_ADVICE),
    *PYTORCH,
    # vllm/config/model.py and pydantic's word for a value that a config class refuses
    Symptom(r"is greater than the derived max_model_len", BadFlagError, FLAG_ADVICE),
    Symptom(r"validation errors? for \w*(?:Config|Args)", BadFlagError, FLAG_ADVICE),
)


class Vllm:
    """vLLM's OpenAI-compatible server."""

    name = "vllm"
    health_path = "/health"
    ready_path = "/health"  # it listens once the engine is up
    metrics_path: str | None = "/metrics"
    # vllm/v1/metrics/loggers.py; the names with `gpu_` are of versions before 0.10
    metrics = EngineMetrics(
        prefix_cache_hit_tokens=("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
        prefix_cache_query_tokens=("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"),
        preemptions=("vllm:num_preemptions_total",),
        queue_s=("vllm:request_queue_time_seconds_sum",),
        queued_requests=("vllm:request_queue_time_seconds_count",),
        prefill_s=("vllm:request_prefill_time_seconds_sum",),
        decode_s=("vllm:request_decode_time_seconds_sum",),
        prompt_tokens=("vllm:prompt_tokens_total",),
        generated_tokens=("vllm:generation_tokens_total",),
        kv_cache_usage_share=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        running_requests=("vllm:num_requests_running",),
        waiting_requests=("vllm:num_requests_waiting",),
    )
    api = COMPLETIONS
    fixes_output_length = True
    takes_token_ids = True
    flags: Mapping[str, Option] = {
        "max_model_len": Option("--max-model-len", int),
        "gpu_memory_utilization": Option("--gpu-memory-utilization", float),
        "max_num_seqs": Option("--max-num-seqs", int),
        "max_num_batched_tokens": Option("--max-num-batched-tokens", int),
        "enable_prefix_caching": Option("--enable-prefix-caching", bool, off="--no-enable-prefix-caching"),
        "quantization": Option("--quantization", str),
    }

    def image(self, version: str) -> str | None:
        """https://hub.docker.com/r/vllm/vllm-openai"""
        return f"vllm/vllm-openai:v{version}"

    def version(self, environment: Path | None) -> str | None:
        """See EngineDriver."""
        return installed_version(self.name, "vllm", environment)

    def prepare_commands(self, launch: Launch) -> Sequence[Sequence[str]]:
        """None."""
        return ()

    def serve_command(self, launch: Launch) -> Sequence[str]:
        """See EngineDriver."""
        check_flags(self.name, self.flags, launch.flags)
        settings: dict[str, FlagValue | None] = {
            "max_model_len": launch.tokens_per_request,
            "max_num_seqs": launch.parallel,
            "gpu_memory_utilization": launch.memory_fraction,
            "enable_prefix_caching": launch.prefix_caching,
            "quantization": one_of(self.name, "quantization", launch.quantization or "fp16", _QUANTIZATIONS),
            **launch.flags,
        }
        return [
            "vllm",
            "serve",
            launch.model,
            f"--host={launch.host}",
            f"--port={launch.port}",
            f"--served-model-name={launch.served_model_name}",
            f"--tensor-parallel-size={launch.tensor_parallel}",
            f"--dtype={launch.dtype}",
            f"--kv-cache-dtype={one_of(self.name, 'KV-cache type', launch.kv_cache_dtype, _KV_CACHE_DTYPES)}",
            *written(self.name, self.flags, settings),
            *(["--load-format=dummy"] if launch.dummy_weights else []),
        ]

    def command(self, launch: Launch) -> Sequence[str]:
        """See EngineDriver."""
        return in_environment(self.name, launch, self.serve_command(launch))

    def variables(self, launch: Launch) -> Mapping[str, str]:
        """No usage statistics; nothing of the hub for a model that is here."""
        offline = {"HF_HUB_OFFLINE": "1"} if launch.model_is_local else {}
        return {"VLLM_NO_USAGE_STATS": "1", "VLLM_DO_NOT_TRACK": "1", **offline}

    def request_model(self, launch: Launch) -> str:
        """Its served name."""
        return launch.served_model_name

    def body_fields(self) -> Mapping[str, object]:
        """`ignore_eos` fixes the output length. Prefix caching is off for the whole server."""
        return {"ignore_eos": True}

    def read_failure(self, log_tail: str, exit_code: int) -> EngineError | None:
        """Typed from the root cause, which vLLM's engine process logs before the server's own error."""
        return read_symptoms(self.name, _SYMPTOMS, log_tail, exit_code)
