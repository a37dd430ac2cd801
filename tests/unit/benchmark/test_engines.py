"""Engines: the command that starts one, and what its last words mean."""

from __future__ import annotations

import socket

import pytest

from assets.benchmark.engines.llamacpp import LlamaCpp
from assets.benchmark.engines.process import check_port, free_port
from assets.benchmark.engines.protocol import (
    BadFlagError,
    CorruptWeightsError,
    EngineError,
    Launch,
    OutOfMemoryError,
    PortTakenError,
    UnknownEngineError,
)
from assets.benchmark.engines.registry import driver_for
from assets.benchmark.executors.subprocess import SubprocessExecutor, _is_a
from assets.matrix.spec import HardwareConfig

LAUNCH = Launch("model.gguf", 8000, parallel=4, tokens_per_request=128)

# recorded from xllamacpp 2026.10.11549
MISSING = """gguf_init_from_file: failed to open GGUF file 'none.gguf' (No such file or directory)
llama_model_load_from_file_impl: failed to load model"""
TORN = """0.00.008.882 E llama_model_load: error loading model: tensor 'blk.0.ffn_gate.weight' data is not within the file bounds
0.00.008.916 E llama_model_load_from_file_impl: failed to load model
0.00.009.559 E srv          init: exiting due to model loading error"""
NO_GGUF = """0.00.006.668 E gguf_init_from_reader: invalid magic characters: 'XXXX', expected 'GGUF'
0.00.007.104 E llama_model_load_from_file_impl: failed to load model"""
NO_MEMORY = """0.00.735.008 E cmn  common_init_: failed to create context with model 'big.gguf'
0.00.735.014 E srv    load_model: failed to create_context with model 'big.gguf'
0.00.735.612 E srv          init: exiting due to model loading error"""
PORT = """0.00.003.171 E srv         start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 18082
0.00.003.295 E srv          init: exiting due to HTTP server error"""
FLAG = "python -m assets.benchmark.engines.llamacpp_server: error: argument --threads: invalid int value: 'many'"


@pytest.mark.parametrize(
    ("log", "error", "words"),
    [
        (MISSING, CorruptWeightsError, "missing or damaged"),
        (TORN, CorruptWeightsError, "blk.0.ffn_gate.weight"),
        (NO_GGUF, CorruptWeightsError, "expected 'GGUF'"),
        (NO_MEMORY, OutOfMemoryError, "not enough memory"),
        (PORT, PortTakenError, "18082"),
        (FLAG, BadFlagError, "--threads"),
    ],
)
def test_llama_cpps_last_words_are_understood(log: str, error: type[EngineError], words: str) -> None:
    reason = LlamaCpp().read_failure(log, 1)
    assert type(reason) is error
    assert words in str(reason)


def test_a_kill_by_the_kernel_means_memory_and_the_unknown_stays_unknown() -> None:
    assert isinstance(LlamaCpp().read_failure("", -9), OutOfMemoryError)
    assert LlamaCpp().read_failure("segmentation fault", -11) is None


def test_a_launch_is_on_loopback_with_one_thread_and_room_for_every_stream() -> None:
    command = LlamaCpp().command(LAUNCH)
    assert {"--host=127.0.0.1", "--port=8000", "--parallel=4", "--context=128", "--threads=1", "--model=model.gguf"} <= set(command)


def test_an_unknown_flag_or_engine_is_refused_before_anything_starts() -> None:
    with pytest.raises(BadFlagError, match="speculative"):
        LlamaCpp().command(Launch("model.gguf", 8000, 1, 128, flags={"speculative": True}))
    with pytest.raises(UnknownEngineError, match=r"no driver for 'abacus'.*llama\.cpp"):
        driver_for("abacus")


def test_a_port_in_use_is_not_taken_for_the_engines() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(PortTakenError, match="free it, or let Dyno choose one"):
        check_port("127.0.0.1", other.getsockname()[1])
    check_port("127.0.0.1", free_port())


@pytest.mark.parametrize(
    ("gpu_type", "product", "same"),
    [
        ("L4", "NVIDIA L4", True),
        ("L4", "NVIDIA L40S", False),
        ("A100-80GB", "NVIDIA A100-SXM4-80GB", True),
        ("A100-80GB", "NVIDIA A100-SXM4-40GB", False),
        ("H100", "NVIDIA H100 80GB HBM3", True),
        ("H200", "NVIDIA H200", True),
        ("H200", "NVIDIA GH200 480GB", False),
    ],
)
def test_gpus_are_known_by_their_product_names(gpu_type: str, product: str, same: bool) -> None:
    assert _is_a(gpu_type, product) is same


def test_the_local_executor_has_the_cpu_and_says_which_gpus_it_lacks() -> None:
    executor = SubprocessExecutor()
    assert executor.unavailable(HardwareConfig("cpu", "cpu", 0, 1, 0.0, None, "")) is None
    reason = executor.unavailable(HardwareConfig("b9999-x64", "B9999", 64, 1, 0.0, None, ""))
    assert reason is not None
    assert "needs 64 x B9999" in reason
