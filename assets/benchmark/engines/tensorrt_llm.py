"""Driver of TensorRT-LLM's `trtllm-serve`. Flags are those of `tensorrt_llm/commands/serve.py` of 1.2."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from assets.benchmark.engines.environments import in_environment, installed_version
from assets.benchmark.engines.failures import FLAG_ADVICE, MEMORY_ADVICE, MODEL_ADVICE, PORT_ADVICE, PYTORCH, Symptom, read_symptoms
from assets.benchmark.engines.options import check_flags, one_of, written
from assets.benchmark.engines.protocol import (
    BadFlagError,
    EngineError,
    FlagValue,
    Launch,
    Option,
    OutOfMemoryError,
    PortTakenError,
    UnsupportedModelError,
)
from assets.benchmark.load.api_formats import COMPLETIONS
from assets.benchmark.load.server_counters import EngineMetrics

# docs/source/features/quantization.md: checkpoints of ModelOpt, whose hf_quant_config.json says what they are. There is no INT8 W8A8 in the
# PyTorch backend.
_QUANTIZATIONS: Mapping[str, str | None] = {"fp16": None, "fp8": None, "int4": None}
_KV_CACHE_DTYPES: Mapping[str, str | None] = {"auto": "auto", "fp8": "fp8"}
_WRITE = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"

_SYMPTOMS = (
    # tensorrt_llm/commands/serve.py, launch_server
    Symptom(r"Failed to bind socket to", PortTakenError, PORT_ADVICE),
    # tensorrt_llm/_torch/pyexecutor: _util.py, py_executor_creator.py (_ExecutorMemoryMonitor), resource_manager.py
    Symptom(
        r"Executor creation failed due to insufficient GPU memory|insufficient GPU memory|Impossible to fit (?:in|any sequence)"
        r"|Not enough free memory for KV cache",
        OutOfMemoryError,
        MEMORY_ADVICE,
    ),
    # tensorrt_llm/_torch/models/modeling_utils.py and modeling_auto.py
    Symptom(r"Unknown architecture for AutoModelForCausalLM|Unsupported (?:model|quantization|quant)", UnsupportedModelError, MODEL_ADVICE),
    *PYTORCH,
    # click; pydantic on the YAML file
    Symptom(r"validation errors? for \w*LlmArgs|unexpected keyword argument", BadFlagError, FLAG_ADVICE),
)


class TensorRtLlm:
    """`trtllm-serve` with its PyTorch backend."""

    name = "tensorrt-llm"
    health_path = "/health"
    ready_path = "/health_generate"  # generates a token for the answer
    metrics_path: str | None = "/prometheus/metrics"
    # tensorrt_llm/metrics/collector.py
    metrics = EngineMetrics(
        queue_s=("trtllm_request_queue_time_seconds_sum",),
        queued_requests=("trtllm_request_queue_time_seconds_count",),
        prefill_s=("trtllm_request_prefill_time_seconds_sum",),
        decode_s=("trtllm_request_decode_time_seconds_sum",),
        prompt_tokens=("trtllm_prompt_tokens_total",),
        generated_tokens=("trtllm_generation_tokens_total",),
        kv_cache_usage_share=("trtllm_kv_cache_utilization",),
        running_requests=("trtllm_num_requests_running",),
        waiting_requests=("trtllm_num_requests_waiting",),
    )
    api = COMPLETIONS
    fixes_output_length = True
    takes_token_ids = True
    flags: Mapping[str, Option] = {
        "max_seq_len": Option("--max_seq_len", int),
        "max_batch_size": Option("--max_batch_size", int),
        "max_num_tokens": Option("--max_num_tokens", int),
        "kv_cache_free_gpu_memory_fraction": Option("--kv_cache_free_gpu_memory_fraction", float),
    }

    def image(self, version: str) -> str | None:
        """https://catalog.ngc.nvidia.com/orgs/nvidia/teams/tensorrt-llm/containers/release"""
        return f"nvcr.io/nvidia/tensorrt-llm/release:{version}"

    def version(self, environment: Path | None) -> str | None:
        """See EngineDriver."""
        return installed_version(self.name, "tensorrt_llm", environment)

    def prepare_commands(self, launch: Launch) -> Sequence[Sequence[str]]:
        """Write the file of options that are no flags. No engine is built.

        trtllm-serve loads Hugging Face checkpoints with its PyTorch backend, the default since 1.0; `trtllm-build`, and the checkpoint
        conversion before it, are for the TensorRT backend, which is legacy (docs/source/legacy of the repository).
        """
        return [["python3", "-c", _WRITE, self._options_path(launch), json.dumps(self._options(launch))]]

    def serve_command(self, launch: Launch) -> Sequence[str]:
        """See EngineDriver. `prepare_commands` come first."""
        self._options(launch)
        check_flags(self.name, self.flags, launch.flags)
        one_of(self.name, "quantization", launch.quantization or "fp16", _QUANTIZATIONS)
        settings: dict[str, FlagValue | None] = {
            "max_seq_len": launch.tokens_per_request,
            "max_batch_size": launch.parallel,
            "kv_cache_free_gpu_memory_fraction": launch.memory_fraction,
            **launch.flags,
        }
        return [
            "trtllm-serve",
            "serve",
            launch.model,
            "--backend=pytorch",
            f"--host={launch.host}",
            f"--port={launch.port}",
            f"--tp_size={launch.tensor_parallel}",
            *written(self.name, self.flags, settings),
            f"--extra_llm_api_options={self._options_path(launch)}",
        ]

    def command(self, launch: Launch) -> Sequence[str]:
        """See EngineDriver."""
        return in_environment(self.name, launch, self.serve_command(launch))

    def variables(self, launch: Launch) -> Mapping[str, str]:
        """Nothing of the hub for a model that is here."""
        return {"TLLM_NO_USAGE_STATS": "1", **({"HF_HUB_OFFLINE": "1"} if launch.model_is_local else {})}

    def request_model(self, launch: Launch) -> str:
        """The folder's name, or the hub id: tensorrt_llm/serve/openai_server.py."""
        return Path(launch.model).name if launch.model_is_local else launch.model

    def body_fields(self) -> Mapping[str, object]:
        """`ignore_eos` fixes the output length. Block reuse is off for the whole server."""
        return {"ignore_eos": True}

    def read_failure(self, log_tail: str, exit_code: int) -> EngineError | None:
        """See EngineDriver."""
        return read_symptoms(self.name, _SYMPTOMS, log_tail, exit_code)

    def _options_path(self, launch: Launch) -> str:
        return f"{launch.scratch_dir}/trtllm-{launch.port}.yaml"

    def _options(self, launch: Launch) -> dict[str, object]:
        """Fields of `TorchLlmArgs` (tensorrt_llm/llmapi/llm_args.py). JSON is YAML. The metrics page needs the two `perf` fields."""
        dtype = one_of(self.name, "KV-cache type", launch.kv_cache_dtype, _KV_CACHE_DTYPES)
        kv_cache: dict[str, object] = {"enable_block_reuse": launch.prefix_caching, "dtype": dtype}
        if launch.memory_fraction is not None:
            kv_cache["free_gpu_memory_fraction"] = launch.memory_fraction
        return {
            "kv_cache_config": kv_cache,
            "dtype": launch.dtype,
            "return_perf_metrics": True,
            "enable_iter_perf_stats": True,
            **({"load_format": "dummy"} if launch.dummy_weights else {}),
        }
