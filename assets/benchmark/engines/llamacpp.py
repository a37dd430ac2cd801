"""Driver of llama.cpp: GGUF files on CPU. Locally its server comes in the `xllamacpp` wheel, on a cluster in its own image."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from assets.benchmark.engines.failures import (
    FLAG_ADVICE,
    MEMORY_ADVICE,
    MODEL_ADVICE,
    PORT_ADVICE,
    Symptom,
    read_symptoms,
)
from assets.benchmark.engines.options import one_of, written
from assets.benchmark.engines.protocol import (
    BadFlagError,
    CorruptWeightsError,
    EngineError,
    Launch,
    Option,
    OutOfMemoryError,
    PortTakenError,
    UnknownEngineError,
    UnsupportedModelError,
)
from assets.benchmark.load.api_formats import COMPLETIONS
from assets.benchmark.load.server_counters import EngineMetrics

# llama.cpp pads each slot's context to a multiple of this
CONTEXT_STEP_TOKENS = 256
# connections that are not in a slot: health, metrics, and requests whose predecessor's connection is still closing
SPARE_HTTP_THREADS = 8

# A GGUF file holds its quantization; `auto` and f16 are how llama.cpp keeps its KV cache unasked.
_QUANTIZATIONS: Mapping[str, str | None] = {"f16": None, "q8_0": None, "q4_0": None}
_KV_CACHE_DTYPES: Mapping[str, str | None] = {"auto": None, "f16": None}

# Words of src/llama-model-loader.cpp, src/llama-model.cpp, ggml/src/gguf.cpp, tools/server/server-http.cpp and common/common.cpp.
_SYMPTOMS = (
    Symptom(r"couldn't bind HTTP server socket", PortTakenError, PORT_ADVICE),
    Symptom(
        r"bad_alloc|[Oo]ut of memory|failed to allocate|unable to allocate|failed to create_?\s?context", OutOfMemoryError, MEMORY_ADVICE
    ),
    Symptom(r"unknown model architecture|unsupported model architecture", UnsupportedModelError, MODEL_ADVICE),
    Symptom(
        r"invalid magic|not within the file bounds|corrupted or incomplete|failed to open|failed to load model",
        CorruptWeightsError,
        "the model file is missing or damaged: materialize the `model` asset again to rebuild it",
    ),
    Symptom(r"error: (?:unrecognized arguments|argument |invalid argument)", BadFlagError, FLAG_ADVICE),
)


def slot_tokens(tokens_per_request: int) -> int:
    """The context of one slot."""
    return -(-tokens_per_request // CONTEXT_STEP_TOKENS) * CONTEXT_STEP_TOKENS


class LlamaCpp:
    """llama.cpp's server."""

    name = "llama.cpp"
    health_path = "/health"
    ready_path = "/health"  # 503 while the model is loading
    metrics_path: str | None = "/metrics"
    # tools/server/README.md, GET /metrics
    metrics = EngineMetrics(
        prefill_s=("llamacpp:prompt_seconds_total",),
        decode_s=("llamacpp:tokens_predicted_seconds_total",),
        prompt_tokens=("llamacpp:prompt_tokens_total",),
        generated_tokens=("llamacpp:tokens_predicted_total",),
        kv_cache_usage_share=("llamacpp:kv_cache_usage_ratio",),
        running_requests=("llamacpp:requests_processing",),
        waiting_requests=("llamacpp:requests_deferred",),
    )
    api = COMPLETIONS
    fixes_output_length = True
    takes_token_ids = True
    flags: Mapping[str, Option] = {"threads": Option("--threads", int)}

    def image(self, version: str) -> str | None:
        """The CPU image of the build that the version ends in: docs/docker.md of ggml-org/llama.cpp."""
        return f"ghcr.io/ggml-org/llama.cpp:server-b{version.rpartition('.')[2]}"

    def version(self, environment: Path | None) -> str | None:
        """The wheel's version, which ends in llama.cpp's build number. The wheel is in Dyno's own environment."""
        try:
            return importlib.metadata.version("xllamacpp")
        except importlib.metadata.PackageNotFoundError:
            raise UnknownEngineError("llama.cpp is not installed here: install the `xllamacpp` package") from None

    def prepare_commands(self, launch: Launch) -> Sequence[Sequence[str]]:
        """None."""
        return ()

    def serve_command(self, launch: Launch) -> Sequence[str]:
        """As `llamacpp_server` sets the wheel's server up, in the words of tools/server/README.md."""
        threads = self._checked(launch)
        return [
            "/app/llama-server",
            f"--model={launch.model}",
            f"--alias={launch.served_model_name}",
            f"--host={launch.host}",
            f"--port={launch.port}",
            f"--parallel={launch.parallel}",
            f"--ctx-size={slot_tokens(launch.tokens_per_request) * launch.parallel}",
            *threads,
            f"--threads-http={2 * launch.parallel + SPARE_HTTP_THREADS}",
            "--no-kv-unified",
            "--fit=off",
            "--gpu-layers=0",
            "--cont-batching",
            "--no-cache-prompt",
            "--cache-ram=0",
            "--slot-prompt-similarity=0.0",
            "--metrics",
            "--no-webui",
        ]

    def command(self, launch: Launch) -> Sequence[str]:
        """One thread unless the deployment's flags say otherwise: on shared cores two threads wait for each other."""
        threads = self._checked(launch)
        return [
            sys.executable,
            "-m",
            "assets.benchmark.engines.llamacpp_server",
            f"--model={launch.model}",
            f"--alias={launch.served_model_name}",
            f"--host={launch.host}",
            f"--port={launch.port}",
            f"--parallel={launch.parallel}",
            f"--context={launch.tokens_per_request}",
            *threads,
        ]

    def variables(self, launch: Launch) -> Mapping[str, str]:
        """None."""
        return {}

    def request_model(self, launch: Launch) -> str:
        """Its alias."""
        return launch.served_model_name

    def body_fields(self) -> Mapping[str, object]:
        """`ignore_eos` fixes the output length; `cache_prompt` off, so that every prompt is computed."""
        return {"ignore_eos": True, "cache_prompt": False}

    def read_failure(self, log_tail: str, exit_code: int) -> EngineError | None:
        """Typed from llama.cpp's own messages, and from the kernel's out-of-memory killer's SIGKILL."""
        return read_symptoms(self.name, _SYMPTOMS, log_tail, exit_code)

    def _checked(self, launch: Launch) -> list[str]:
        """The flags. Raises BadFlagError for what this driver cannot launch."""
        if launch.quantization is not None:
            one_of(self.name, "quantization", launch.quantization, _QUANTIZATIONS)
        one_of(self.name, "KV-cache type", launch.kv_cache_dtype, _KV_CACHE_DTYPES)
        if launch.prefix_caching or launch.dummy_weights or launch.tensor_parallel > 1:
            raise BadFlagError("llama.cpp is driven on the CPU, with the weights of a file and without a prompt cache")
        return written(self.name, self.flags, {"threads": 1, **launch.flags})
