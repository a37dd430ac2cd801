"""Driver of `transformers serve`, with continuous batching. Flags and messages are those of transformers 5.

It has no official image (`huggingface/transformers-pytorch-gpu` comes without the server), and no metrics page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from assets.benchmark.engines.environments import in_environment, installed_version
from assets.benchmark.engines.failures import FLAG_ADVICE, MODEL_ADVICE, PYTORCH, WEIGHTS_ADVICE, Symptom, read_symptoms
from assets.benchmark.engines.options import check_flags, one_of, written
from assets.benchmark.engines.protocol import (
    BadFlagError,
    CorruptWeightsError,
    EngineError,
    FlagValue,
    Launch,
    Option,
    UnsupportedModelError,
)
from assets.benchmark.load.api_formats import COMPLETIONS
from assets.benchmark.load.server_counters import EngineMetrics

# bitsandbytes, while loading: LLM.int8() and NF4 (transformers/cli/serving/model_manager.py, get_quantization_config)
_QUANTIZATIONS: Mapping[str, str | None] = {"fp16": None, "int8": "bnb-8bit", "int4": "bnb-4bit"}

_SYMPTOMS = (
    # transformers/cli/serving/model_manager.py
    Symptom(r"Unsupported (?:dtype|quantization method|attention implementation)", BadFlagError, FLAG_ADVICE),
    Symptom(r"module transformers has no attribute", UnsupportedModelError, MODEL_ADVICE),
    # huggingface_hub on a model that is neither a folder nor, offline, in the cache
    Symptom(r"is not a local folder and is not a valid model identifier|Incorrect path_or_model_id", CorruptWeightsError, WEIGHTS_ADVICE),
    *PYTORCH,
)

# ContinuousBatchingConfig.page_size
PAGE_TOKENS = 256


class TransformersServe:
    """`transformers serve` pinned to one model, which it loads before it listens."""

    name = "transformers"
    health_path = "/health"
    ready_path = "/health"
    metrics_path: str | None = None
    metrics = EngineMetrics()
    api = COMPLETIONS
    # It refuses unknown fields (`ignore_eos`) with 422, but takes a generation config of one's own.
    fixes_output_length = True
    # transformers/cli/serving/completion.py: "prompt must be a string."
    takes_token_ids = False
    flags: Mapping[str, Option] = {
        "continuous_batching": Option("--continuous-batching", bool, off="--no-continuous-batching"),
    }

    def image(self, version: str) -> str | None:
        """None."""
        return None

    def version(self, environment: Path | None) -> str | None:
        """See EngineDriver."""
        return installed_version(self.name, "transformers", environment)

    def prepare_commands(self, launch: Launch) -> Sequence[Sequence[str]]:
        """None."""
        return ()

    def serve_command(self, launch: Launch) -> Sequence[str]:
        """See EngineDriver. The context is the model's own: there is no flag for it."""
        check_flags(self.name, self.flags, launch.flags)
        if launch.dummy_weights or launch.prefix_caching or launch.tensor_parallel > 1 or launch.kv_cache_dtype != "auto":
            raise BadFlagError("transformers serve has no dummy weights, no tensor parallelism and no options of the KV cache's content")
        quantization = one_of(self.name, "quantization", launch.quantization or "fp16", _QUANTIZATIONS)
        settings: dict[str, FlagValue | None] = {"continuous_batching": True, **launch.flags}
        return [
            "transformers",
            "serve",
            launch.model,
            f"--host={launch.host}",
            f"--port={launch.port}",
            f"--dtype={launch.dtype}",
            *([f"--quantization={quantization}"] if quantization is not None else []),
            _cache_size(launch),
            *written(self.name, self.flags, settings),
        ]

    def command(self, launch: Launch) -> Sequence[str]:
        """See EngineDriver."""
        return in_environment(self.name, launch, self.serve_command(launch))

    def variables(self, launch: Launch) -> Mapping[str, str]:
        """Nothing of the hub for a model that is here; rich writes its errors in one line each."""
        return {"COLUMNS": "400", **({"HF_HUB_OFFLINE": "1"} if launch.model_is_local else {})}

    def request_model(self, launch: Launch) -> str:
        """The model as it was named at the start: another name is refused."""
        return launch.model

    def body_fields(self) -> Mapping[str, object]:
        """A generation config (JSON in a string) whose end token does not exist, so that no answer ends early."""
        return {"generation_config": json.dumps({"eos_token_id": -1, "do_sample": False})}

    def read_failure(self, log_tail: str, exit_code: int) -> EngineError | None:
        """See EngineDriver."""
        return read_symptoms(self.name, _SYMPTOMS, log_tail, exit_code)


def _cache_size(launch: Launch) -> str:
    """Room for every stream, unless a share of the memory is asked for: unasked it takes 90 % of what is free, of a machine's RAM too."""
    if launch.memory_fraction is not None:
        return f"--cb-max-memory-percent={launch.memory_fraction}"
    return f"--cb-num-blocks={launch.parallel * -(-launch.tokens_per_request // PAGE_TOKENS) + 1}"
