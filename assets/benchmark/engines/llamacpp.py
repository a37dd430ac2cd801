"""Driver of llama.cpp, the local engine: GGUF files on CPU."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Mapping, Sequence

from assets.benchmark.engines.protocol import (
    BadFlagError,
    CorruptWeightsError,
    EngineError,
    Launch,
    OutOfMemoryError,
    PortTakenError,
    UnknownEngineError,
)

_SIGKILL_EXIT_CODES = (-9, 137)

_REASONS: tuple[tuple[re.Pattern[str], type[EngineError], str], ...] = (
    (
        re.compile(r"couldn't bind HTTP server socket"),
        PortTakenError,
        "its port is taken by another process: free it, or let Dyno choose one",
    ),
    (
        re.compile(r"bad_alloc|[Oo]ut of memory|failed to allocate|unable to allocate|failed to create_?\s?context"),
        OutOfMemoryError,
        "there is not enough memory for the weights and the KV cache: use a smaller model, fewer concurrent requests, or a larger machine",
    ),
    (
        re.compile(r"invalid magic|not within the file bounds|corrupted or incomplete|failed to open|failed to load model"),
        CorruptWeightsError,
        "the model file is missing or damaged: materialize the `model` asset again to rebuild it",
    ),
    (re.compile(r"error: (?:unrecognized arguments|argument )"), BadFlagError, "the engine does not know one of its flags"),
)


class LlamaCpp:
    """llama.cpp's server, started from the `xllamacpp` wheel."""

    name = "llama.cpp"
    health_path = "/health"
    metrics_path: str | None = "/metrics"

    def version(self) -> str:
        """The wheel's version, which ends in llama.cpp's build number."""
        try:
            return importlib.metadata.version("xllamacpp")
        except importlib.metadata.PackageNotFoundError:
            raise UnknownEngineError("llama.cpp is not installed here: install the `xllamacpp` package") from None

    def command(self, launch: Launch) -> Sequence[str]:
        """One thread unless the deployment's flags say otherwise: on shared cores two threads wait for each other."""
        unknown = set(launch.flags) - {"threads"}
        if unknown:
            raise BadFlagError(f"llama.cpp has no flag {', '.join(sorted(unknown))}: `threads` is the one that can be set")
        return [
            sys.executable,
            "-m",
            "assets.benchmark.engines.llamacpp_server",
            f"--model={launch.model_path}",
            f"--host={launch.host}",
            f"--port={launch.port}",
            f"--parallel={launch.parallel}",
            f"--context={launch.tokens_per_request}",
            f"--threads={launch.flags.get('threads', 1)}",
        ]

    def body_fields(self) -> Mapping[str, object]:
        """`ignore_eos` fixes the output length; `cache_prompt` off, so that every prompt is computed."""
        return {"ignore_eos": True, "cache_prompt": False}

    def read_failure(self, log_tail: str, exit_code: int) -> EngineError | None:
        """Typed from llama.cpp's own messages, and from the kernel's out-of-memory killer's SIGKILL."""
        for pattern, error, advice in _REASONS:
            found = pattern.search(log_tail)
            if found:
                line = next((line for line in log_tail.splitlines() if found.group() in line), found.group())
                return error(f"llama.cpp did not start: {advice} ({line.strip()})")
        if exit_code in _SIGKILL_EXIT_CODES:
            return OutOfMemoryError("llama.cpp was killed (SIGKILL), which is what the kernel does when memory runs out")
        return None
