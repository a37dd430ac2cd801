"""What the last words of an engine mean: log lines as the engines write them, with their prefixes and what follows."""

from __future__ import annotations

import pytest

from assets.benchmark.engines.protocol import (
    BadFlagError,
    CorruptWeightsError,
    DriverError,
    EngineError,
    OutOfMemoryError,
    PortTakenError,
    UnsupportedModelError,
)
from assets.benchmark.engines.registry import DRIVERS, driver_for

VLLM_END = """
(APIServer pid=101) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore_DP0': 1}"""

# vLLM 0.32 (vllm/v1/worker/utils.py, vllm/v1/core/kv_cache_utils.py, vllm/model_executor, vllm/config) and its argparse
VLLM = [
    (
        "(EngineCore_DP0 pid=211) torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.96 GiB. GPU 0 has a total capacity of "
        "79.10 GiB of which 1.12 GiB is free." + VLLM_END,
        OutOfMemoryError,
        "Tried to allocate 1.96 GiB",
    ),
    (
        "(EngineCore_DP0 pid=211) ValueError: Free memory on device cuda:0 (3.11/22.03 GiB) on startup is less than desired GPU memory "
        "utilization (0.9, 19.83 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes." + VLLM_END,
        OutOfMemoryError,
        "3.11/22.03 GiB",
    ),
    (
        "(EngineCore_DP0 pid=211) ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
        "initializing the engine" + VLLM_END,
        OutOfMemoryError,
        "cache blocks",
    ),
    (
        "(EngineCore_DP0 pid=211) ValueError: To serve at least one request with the model's max seq len (131072), (16.0 GiB KV cache is "
        "needed, which is larger than the available KV cache memory (5.07 GiB)." + VLLM_END,
        OutOfMemoryError,
        "131072",
    ),
    (
        (
            "(APIServer pid=101) pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
            "  Value error, Model architectures ['MambaMagicForCausalLM'] are not supported for now. Supported"
        ),
        UnsupportedModelError,
        "MambaMagicForCausalLM",
    ),
    (
        "(EngineCore_DP0 pid=211) ValueError: The quantization method fp8 is not supported for the current GPU. Minimum capability: 89. "
        "Current capability: 80." + VLLM_END,
        UnsupportedModelError,
        "Minimum capability: 89",
    ),
    ("vllm: error: unrecognized arguments: --max-sequences=4", BadFlagError, "--max-sequences=4"),
    ("vllm serve: error: argument --max-num-seqs: invalid int value: 'many'", BadFlagError, "invalid int value"),
    (
        (
            "(APIServer pid=101) pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n  Value error, "
            "User-specified max_model_len (9000) is greater than the derived max_model_len "
        ),
        BadFlagError,
        "9000",
    ),
    (
        "(EngineCore_DP0 pid=211) safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata, file not fully "
        "covered" + VLLM_END,
        CorruptWeightsError,
        "incomplete metadata",
    ),
    ("RuntimeError: Cannot find any model weights with `/models/llama`" + VLLM_END, CorruptWeightsError, "/models/llama"),
    ("(APIServer pid=101) OSError: [Errno 98] Address already in use", PortTakenError, "Errno 98"),
    ("RuntimeError: Failed to infer device type, please set the environment variable", DriverError, "infer device type"),
    (
        "RuntimeError: The NVIDIA driver on your system is too old (found version 12040). Please update your GPU driver",
        DriverError,
        "12040",
    ),
]
# text-generation-inference 3.3: the launcher's JSON-less log, clap, the shards' Python
TGI = [
    (
        (
            "2026-11-21T09:00:01.000Z ERROR text_generation_launcher: Method Warmup encountered an error.\n"
            "RuntimeError: Not enough memory to handle 8192 prefill tokens. You need to decrease `--max-batch-prefill-tokens`"
        ),
        OutOfMemoryError,
        "8192 prefill tokens",
    ),
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 112.00 MiB.\nError: ShardCannotStart", OutOfMemoryError, "112.00 MiB"),
    ("ValueError: Unsupported model type bert\nError: ShardCannotStart", UnsupportedModelError, "bert"),
    (
        "error: unexpected argument '--max-tokens' found\n\n  tip: a similar argument exists: '--max-total-tokens'",
        BadFlagError,
        "--max-tokens",
    ),
    ("error: invalid value 'int9' for '--quantize <QUANTIZE>'\n  [possible values: awq, eetq]", BadFlagError, "int9"),
    ('Error: ArgumentValidation("`max_input_tokens` must be < `max_total_tokens`")', BadFlagError, "max_input_tokens"),
    ("RuntimeError: weight model.layers.0.self_attn.q_proj.weight does not exist\nError: ShardCannotStart", CorruptWeightsError, "q_proj"),
    ("safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge", CorruptWeightsError, "HeaderTooLarge"),
    ("Error: WebserverFailed\nAddress already in use (os error 98)", PortTakenError, "os error 98"),
    ("RuntimeError: CUDA error: uncorrectable ECC error encountered", DriverError, "ECC"),
]
LMDEPLOY = [
    ("RuntimeError: No enough gpu memory for runtime.", OutOfMemoryError, "gpu memory"),
    ("[TM][ERROR] CUDA runtime error: out of memory /lmdeploy/src/turbomind/utils/memory.cc:32", OutOfMemoryError, "out of memory"),
    ("lmdeploy serve api_server: error: argument --model-format: invalid choice: 'int4'", BadFlagError, "--model-format"),
    ("AssertionError: invalid cache_max_entry_count", BadFlagError, "cache_max_entry_count"),
    (
        "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 23333): address already in use",
        PortTakenError,
        "23333",
    ),
    ("OSError: /models/llama does not appear to have a file named config.json.", CorruptWeightsError, "config.json"),
    ("RuntimeError: Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU", DriverError, "no NVIDIA driver"),
]
SGLANG = [
    (
        (
            "[2026-11-21 09:00:01 TP0] Scheduler hit an exception: Traceback (most recent call last):\n"
            "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. Current value: mem_fraction_static=0.3"
        ),
        OutOfMemoryError,
        "mem_fraction_static=0.3",
    ),
    ("Exception: Capture cuda graph failed: CUDA out of memory. Tried to allocate 2.00 GiB.", OutOfMemoryError, "2.00 GiB"),
    (
        "ValueError: Model architectures ['FooForCausalLM'] are not supported for now. Supported architectures:",
        UnsupportedModelError,
        "Foo",
    ),
    ("launch_server.py: error: unrecognized arguments: --context-size=128", BadFlagError, "--context-size"),
    ("OSError: [Errno 98] Address already in use", PortTakenError, "Errno 98"),
    ("safetensors_rust.SafetensorError: Error while deserializing header: invalid JSON in header", CorruptWeightsError, "header"),
    ("RuntimeError: No CUDA GPUs are available", DriverError, "No CUDA GPUs"),
]
TENSORRT_LLM = [
    ("RuntimeError: Failed to bind socket to 127.0.0.1:8000: [Errno 98] Address already in use", PortTakenError, "127.0.0.1:8000"),
    ("RuntimeError: Executor creation failed due to insufficient GPU memory.", OutOfMemoryError, "insufficient GPU memory"),
    ("ValueError: Unknown architecture for AutoModelForCausalLM: FooForCausalLM", UnsupportedModelError, "FooForCausalLM"),
    ("Usage: trtllm-serve serve [OPTIONS] MODEL\n\nError: No such option: --max_tokens", BadFlagError, "--max_tokens"),
    ("pydantic_core._pydantic_core.ValidationError: 1 validation error for TorchLlmArgs\nkv_cache", BadFlagError, "TorchLlmArgs"),
    ("RuntimeError: CUDA driver version is insufficient for CUDA runtime version", DriverError, "insufficient for CUDA"),
    ("FileNotFoundError: [Errno 2] No such file or directory: '/models/llama/config.json'", CorruptWeightsError, "config.json"),
]
TRANSFORMERS = [
    ("│ No such option: --max-length                                      │", BadFlagError, "--max-length"),
    ("│ Invalid value for '--port': 'http' is not a valid int.            │", BadFlagError, "--port"),
    ("ValueError: Unsupported dtype: 'float7'. Must be 'auto' or a valid torch dtype", BadFlagError, "float7"),
    (
        "ValueError: The checkpoint you are trying to load has model type `foo` but Transformers does not recognize this architecture.",
        UnsupportedModelError,
        "foo",
    ),
    ("AttributeError: module transformers has no attribute FooForCausalLM", UnsupportedModelError, "FooForCausalLM"),
    ("safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata", CorruptWeightsError, "incomplete"),
    ("ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 8000): address already in use", PortTakenError, "8000"),
    (
        (
            "RuntimeError: [enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
            "you tried to allocate 301989888 bytes. Error code 12 (Cannot allocate memory)"
        ),
        OutOfMemoryError,
        "301989888",
    ),
]
LOGS = {"vllm": VLLM, "tgi": TGI, "lmdeploy": LMDEPLOY, "sglang": SGLANG, "tensorrt-llm": TENSORRT_LLM, "transformers": TRANSFORMERS}


@pytest.mark.parametrize(
    ("engine", "log", "error", "words"),
    [(engine, *case) for engine, cases in LOGS.items() for case in cases],
    ids=[f"{engine}-{case[1].kind}-{number}" for engine, cases in LOGS.items() for number, case in enumerate(cases)],
)
def test_an_engines_last_words_are_understood(engine: str, log: str, error: type[EngineError], words: str) -> None:
    """The reason is typed, and the engine's own line is in the sentence."""
    noise = "INFO 11-21 09:00:00 loading weights took 3.2 seconds\n"
    reason = driver_for(engine).read_failure(f"{noise}{log}\n", 1)
    assert type(reason) is error
    assert str(reason).startswith(f"{engine} did not start: ")
    assert words in str(reason)


@pytest.mark.parametrize("engine", LOGS)
def test_a_log_that_shows_nothing_gives_no_reason(engine: str) -> None:
    """A guess would decide about retries."""
    assert driver_for(engine).read_failure("INFO: Application startup complete.\nGET /health 200\n", 1) is None
    assert isinstance(driver_for(engine).read_failure("", -9), OutOfMemoryError)


def test_a_driver_fault_is_retried_elsewhere_and_a_model_that_is_not_supported_is_not() -> None:
    assert (DriverError.kind, DriverError.retryable) == ("driver_error", True)
    assert (UnsupportedModelError.kind, UnsupportedModelError.retryable) == ("unsupported_model", False)


def test_there_is_nothing_to_read_of_an_external_server() -> None:
    assert DRIVERS["external"].read_failure("CUDA out of memory", -9) is None
