"""llama.cpp's HTTP server (from the `xllamacpp` wheel) as a process: `python -m assets.benchmark.engines.llamacpp_server --model FILE ...`.

`/v1/completions`, `/health` and `/metrics` are llama.cpp's own. What differs from its defaults is set here, for measuring: no prompt cache,
no silent shrinking of the context to the memory at hand.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence
from pathlib import Path

import xllamacpp

# llama.cpp pads each slot's context to a multiple of this
CONTEXT_STEP_TOKENS = 256
# connections that are not in a slot: health, metrics, and requests whose predecessor's connection is still closing
SPARE_HTTP_THREADS = 8


def parameters(arguments: argparse.Namespace) -> xllamacpp.CommonParams:
    """llama.cpp's parameters for the command line."""
    params = xllamacpp.CommonParams()
    params.model.path = str(arguments.model)
    params.model_alias = {arguments.alias}
    params.hostnames = [arguments.host]
    params.port = arguments.port
    params.n_parallel = arguments.parallel
    slot_tokens = -(-arguments.context // CONTEXT_STEP_TOKENS) * CONTEXT_STEP_TOKENS
    params.n_ctx = slot_tokens * arguments.parallel
    params.kv_unified = False
    params.fit_params = False
    params.n_gpu_layers = 0
    params.n_threads_http = 2 * arguments.parallel + SPARE_HTTP_THREADS
    for cpu in (params.cpuparams, params.cpuparams_batch):
        cpu.n_threads = arguments.threads
    params.cont_batching = True
    params.cache_prompt = False
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    params.slot_prompt_similarity = 0.0
    params.endpoint_metrics = True
    params.ui = False
    return params


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m assets.benchmark.engines.llamacpp_server", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="GGUF file")
    parser.add_argument("--alias", default="model", help="model name in requests and replies")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--parallel", type=int, default=1, help="requests served at once (slots)")
    parser.add_argument("--context", type=int, default=2048, help="tokens per slot: prompt and output")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)

    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)  # before the server's threads, which inherit it
    # for the log: which of the CPU's instructions this build uses, which explains a prefill that is slower than another build's
    print(xllamacpp.get_system_info(), flush=True)
    server = xllamacpp.Server(parameters(arguments))
    print(f"serving on {server.listening_address}", flush=True)
    signal.sigwait(stop)


if __name__ == "__main__":
    main()
