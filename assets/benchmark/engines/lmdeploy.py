"""Driver of LMDeploy: TurboMind, and its PyTorch engine for what TurboMind does not have. Flags are those of `lmdeploy/cli` of 0.16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from assets.benchmark.engines.environments import in_environment, installed_version
from assets.benchmark.engines.failures import (
    FLAG_ADVICE,
    MEMORY_ADVICE,
    MODEL_ADVICE,
    PYTORCH,
    Symptom,
    read_symptoms,
)
from assets.benchmark.engines.options import check_flags, one_of, written
from assets.benchmark.engines.protocol import BadFlagError, EngineError, FlagValue, Launch, Option, OutOfMemoryError, UnsupportedModelError
from assets.benchmark.load.api_formats import COMPLETIONS
from assets.benchmark.load.server_counters import EngineMetrics

# docs/en/quantization/w8a8.md: FP8 and INT8 (W8A8) are the PyTorch engine's; LMDeploy chooses one itself for the others.
_BACKENDS: Mapping[str, str | None] = {"fp16": None, "fp8": "pytorch", "int8": "pytorch", "int4": None}
_DTYPES: Mapping[str, str | None] = {"auto": "auto", "float16": "float16", "bfloat16": "bfloat16"}
# lmdeploy/messages.py, QuantPolicy; without one the KV cache has the model's type
_QUANT_POLICIES: Mapping[str, str | None] = {"auto": None, "int4": "int4", "int8": "int8", "fp8": "fp8", "fp8_e5m2": "fp8_e5m2"}

_SYMPTOMS = (
    # lmdeploy/pytorch/engine/executor/base.py; src/turbomind, cudaMalloc in its CHECK macros
    Symptom(r"No enough gpu memory for (?:runtime|kv cache|state cache)|\[TM\]\[ERROR\].*out of memory", OutOfMemoryError, MEMORY_ADVICE),
    # lmdeploy/archs.py, lmdeploy/pytorch/models/patch.py
    Symptom(
        r"(?:architecture|model)\S* .*is not supported|Unsupported model arch|Can not found rewrite for",
        UnsupportedModelError,
        MODEL_ADVICE,
    ),
    *PYTORCH,
    # AssertionErrors of lmdeploy/messages.py on an engine's configuration
    Symptom(r"invalid (?:cache_max_entry_count|max_batch_size|quant_policy|block_size)", BadFlagError, FLAG_ADVICE),
)


class LmDeploy:
    """LMDeploy's api_server."""

    name = "lmdeploy"
    health_path = "/health"
    ready_path = "/v1/models"
    metrics_path: str | None = "/metrics"
    # lmdeploy/metrics/loggers.py
    metrics = EngineMetrics(
        prefix_cache_hit_tokens=("lmdeploy:cached_tokens_total",),
        prefix_cache_query_tokens=("lmdeploy:prompt_tokens_total",),
        queue_s=("lmdeploy:request_queue_time_seconds_sum",),
        queued_requests=("lmdeploy:request_queue_time_seconds_count",),
        prefill_s=("lmdeploy:request_prefill_time_seconds_sum",),
        decode_s=("lmdeploy:request_decode_time_seconds_sum",),
        prompt_tokens=("lmdeploy:prompt_tokens_total",),
        generated_tokens=("lmdeploy:generation_tokens_total",),
        kv_cache_usage_share=("lmdeploy:gpu_cache_usage_perc",),
        running_requests=("lmdeploy:num_requests_running",),
        waiting_requests=("lmdeploy:num_requests_waiting",),
    )
    api = COMPLETIONS
    fixes_output_length = True
    # lmdeploy/serve/openai/protocol.py: a list in `prompt` is a list of prompts
    takes_token_ids = False
    flags: Mapping[str, Option] = {
        "session_len": Option("--session-len", int),
        "cache_max_entry_count": Option("--cache-max-entry-count", float),
        "max_batch_size": Option("--max-batch-size", int),
        "max_prefill_token_num": Option("--max-prefill-token-num", int),
        "enable_prefix_caching": Option("--enable-prefix-caching", bool),
    }

    def image(self, version: str) -> str | None:
        """https://hub.docker.com/r/openmmlab/lmdeploy; the tags end in the CUDA that they are built for."""
        return f"openmmlab/lmdeploy:v{version}-cu12.8"

    def version(self, environment: Path | None) -> str | None:
        """See EngineDriver."""
        return installed_version(self.name, "lmdeploy", environment)

    def prepare_commands(self, launch: Launch) -> Sequence[Sequence[str]]:
        """None: weights are converted while they are loaded."""
        return ()

    def serve_command(self, launch: Launch) -> Sequence[str]:
        """See EngineDriver."""
        check_flags(self.name, self.flags, launch.flags)
        if launch.dummy_weights:
            raise BadFlagError("lmdeploy cannot make weights up: give it the model's own")
        backend = one_of(self.name, "quantization", launch.quantization or "fp16", _BACKENDS)
        quant_policy = one_of(self.name, "KV-cache type", launch.kv_cache_dtype, _QUANT_POLICIES)
        settings: dict[str, FlagValue | None] = {
            "session_len": launch.tokens_per_request,
            "max_batch_size": launch.parallel,
            "cache_max_entry_count": launch.memory_fraction,
            "enable_prefix_caching": launch.prefix_caching,
            **launch.flags,
        }
        return [
            "lmdeploy",
            "serve",
            "api_server",
            launch.model,
            f"--server-name={launch.host}",
            f"--server-port={launch.port}",
            f"--model-name={launch.served_model_name}",
            f"--tp={launch.tensor_parallel}",
            f"--dtype={one_of(self.name, 'data type', launch.dtype, _DTYPES)}",
            *([f"--backend={backend}"] if backend is not None else []),
            *([f"--quant-policy={quant_policy}"] if quant_policy is not None else []),
            *written(self.name, self.flags, settings),
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
