"""Driver of Hugging Face's Text Generation Inference: in maintenance since 2025-12, its repository archived since 2026-03.

Flags are those of `launcher/src/main.rs` of 3.3.7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from assets.benchmark.engines.environments import in_environment
from assets.benchmark.engines.failures import (
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
    EngineError,
    FlagValue,
    Launch,
    Option,
    OutOfMemoryError,
    UnsupportedModelError,
)
from assets.benchmark.load.api_formats import TGI
from assets.benchmark.load.server_counters import EngineMetrics

# fp8 quantizes while loading; W8A8, GPTQ and AWQ checkpoints are known by their config.json (`Config.quantize` in main.rs).
_QUANTIZATIONS: Mapping[str, str | None] = {"fp16": None, "fp8": "fp8", "int8": None, "int4": None}
_DTYPES: Mapping[str, str | None] = {"auto": None, "float16": "float16", "bfloat16": "bfloat16"}
_KV_CACHE_DTYPES: Mapping[str, str | None] = {"auto": None, "fp8": "fp8_e4m3fn", "fp8_e5m2": "fp8_e5m2"}

_SYMPTOMS = (
    # server/text_generation_server/models/flash_causal_lm.py (warmup)
    Symptom(r"Not enough memory to handle", OutOfMemoryError, MEMORY_ADVICE),
    # server/text_generation_server/models/__init__.py (get_model)
    Symptom(r"Unsupported model type|is not supported for sharded|NotImplementedError", UnsupportedModelError, MODEL_ADVICE),
    # server/text_generation_server/utils/weights.py and hub.py
    Symptom(r"weight .* does not exist|No local weights found", CorruptWeightsError, WEIGHTS_ADVICE),
    # clap, and the launcher's ArgumentValidation
    Symptom(r"error: (?:unexpected argument|invalid value|the argument)|ArgumentValidation\(", BadFlagError, FLAG_ADVICE),
    *PYTORCH,
)


class Tgi:
    """TGI's launcher, which starts a router and a process for each shard."""

    name = "tgi"
    health_path = "/health"
    ready_path = "/health"  # it generates a token for the answer once the shards are up
    metrics_path: str | None = "/metrics"
    # docs/source/reference/metrics.md. Prefill and decode are of batches: TGI counts neither for single requests.
    metrics = EngineMetrics(
        queue_s=("tgi_request_queue_duration_sum",),
        queued_requests=("tgi_request_queue_duration_count",),
        prefill_s=('tgi_batch_inference_duration_sum{method="prefill"}',),
        decode_s=('tgi_batch_inference_duration_sum{method="decode"}',),
        prompt_tokens=("tgi_request_input_length_sum",),
        generated_tokens=("tgi_request_generated_tokens_sum",),
        running_requests=("tgi_batch_current_size",),
        waiting_requests=("tgi_queue_size",),
    )
    api = TGI
    # router/src/validation.rs: ignore_eos_token is false, whatever a request says
    fixes_output_length = False
    takes_token_ids = False
    flags: Mapping[str, Option] = {
        "max_total_tokens": Option("--max-total-tokens", int),
        "cuda_memory_fraction": Option("--cuda-memory-fraction", float),
        "max_concurrent_requests": Option("--max-concurrent-requests", int),
        "max_batch_prefill_tokens": Option("--max-batch-prefill-tokens", int),
        "quantize": Option("--quantize", str),
    }

    def image(self, version: str) -> str | None:
        """https://github.com/huggingface/text-generation-inference/pkgs/container/text-generation-inference"""
        return f"ghcr.io/huggingface/text-generation-inference:{version}"

    def version(self, environment: Path | None) -> str | None:
        """Not known: TGI is no Python package, and its image's tag is its version."""
        return None

    def prepare_commands(self, launch: Launch) -> Sequence[Sequence[str]]:
        """None."""
        return ()

    def serve_command(self, launch: Launch) -> Sequence[str]:
        """The image's entry point readies its libraries and hands its arguments to the launcher."""
        return ["/tgi-entrypoint.sh", *self._arguments(launch)]

    def command(self, launch: Launch) -> Sequence[str]:
        """See EngineDriver."""
        return in_environment(self.name, launch, ["text-generation-launcher", *self._arguments(launch)])

    def variables(self, launch: Launch) -> Mapping[str, str]:
        """PREFIX_CACHING is no flag: launcher/src/main.rs, resolve_attention."""
        offline = {"HF_HUB_OFFLINE": "1"} if launch.model_is_local else {}
        return {"PREFIX_CACHING": "1" if launch.prefix_caching else "0", **offline}

    def request_model(self, launch: Launch) -> str:
        """TGI serves one model and does not read the name."""
        return launch.served_model_name

    def body_fields(self) -> Mapping[str, object]:
        """None: TGI has no field that keeps an answer from ending early."""
        return {}

    def read_failure(self, log_tail: str, exit_code: int) -> EngineError | None:
        """Typed from the launcher's, the router's and the shards' messages, which are in one log."""
        return read_symptoms(self.name, _SYMPTOMS, log_tail, exit_code)

    def _arguments(self, launch: Launch) -> list[str]:
        check_flags(self.name, self.flags, launch.flags)
        if launch.dummy_weights:
            raise BadFlagError("tgi cannot make weights up: give it the model's own")
        settings: dict[str, FlagValue | None] = {
            "max_total_tokens": launch.tokens_per_request,
            "max_concurrent_requests": launch.parallel,
            "cuda_memory_fraction": launch.memory_fraction,
            "quantize": one_of(self.name, "quantization", launch.quantization or "fp16", _QUANTIZATIONS),
            **launch.flags,
        }
        arguments = written(self.name, self.flags, settings)
        dtype = one_of(self.name, "data type", launch.dtype, _DTYPES)
        kv_cache_dtype = one_of(self.name, "KV-cache type", launch.kv_cache_dtype, _KV_CACHE_DTYPES)
        return [
            f"--model-id={launch.model}",
            f"--hostname={launch.host}",
            f"--port={launch.port}",
            f"--num-shard={launch.tensor_parallel}",
            f"--max-input-tokens={int(settings['max_total_tokens'] or launch.tokens_per_request) - 1}",
            *arguments,
            # main.rs: "This option cannot be used with `--quantize`"
            *([f"--dtype={dtype}"] if dtype is not None and settings["quantize"] is None else []),
            *([f"--kv-cache-dtype={kv_cache_dtype}"] if kv_cache_dtype is not None else []),
            "--usage-stats=off",
        ]
