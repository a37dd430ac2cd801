"""The sampler sees the machine and the engine's process tree; a machine without a driver is said to have none."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace

import pynvml
import pytest

from assets.benchmark.host import host_facts
from assets.benchmark.telemetry import GpuReader, Sampler


def test_host_and_engine_are_sampled_at_least_once_however_short_the_load_point() -> None:
    with GpuReader() as gpus:
        with Sampler(os.getpid(), gpus) as sampler:
            pass
        summary = sampler.summary()
    devices = {sample.device for sample in sampler.samples}
    assert {"host", "engine"} <= devices
    assert summary.cpu_utilization_pct is not None
    assert summary.engine_memory_bytes_max is not None
    assert summary.engine_memory_bytes_max > 1 << 20


def test_without_a_driver_there_is_a_note_instead_of_gpu_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver() -> None:
        raise pynvml.NVMLError_LibraryNotFound

    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    with GpuReader() as gpus, Sampler(None, gpus) as sampler:
        pass
    summary = sampler.summary()
    assert (summary.gpu_utilization_pct, summary.gpu_memory_bytes_max, summary.gpu_names) == (None, None, ())
    assert summary.notes[0].startswith("no GPU telemetry")


def test_a_deployment_without_gpus_reads_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """What others do on this machine's GPUs is not its own, and nothing is missing either."""
    monkeypatch.setattr(pynvml, "nvmlInit", pytest.fail)
    with GpuReader(enabled=False) as gpus:
        assert (gpus.names(), gpus.note) == ((), None)


def test_what_a_gpu_does_not_tell_leaves_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under MIG there is no utilization, but memory and power."""

    def not_supported(_: object) -> None:
        raise pynvml.NVMLError_NotSupported

    answers: dict[str, Callable[..., object]] = {"nvmlInit": lambda: None, "nvmlShutdown": lambda: None, "nvmlDeviceGetCount": lambda: 1}
    answers |= {"nvmlDeviceGetHandleByIndex": lambda index: index, "nvmlDeviceGetPowerUsage": lambda _: 250_000}
    answers |= {"nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(used=7), "nvmlDeviceGetUtilizationRates": not_supported}
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    with GpuReader() as gpus:
        (sample,) = gpus.read("now")
        assert (sample.memory_bytes, sample.utilization_pct, sample.power_w) == (7, None, 250.0)
        assert "incomplete" in str(gpus.note)


def test_host_facts_do_not_name_the_machine() -> None:
    facts = host_facts()
    assert facts["logical_cores"] == os.cpu_count()
    assert os.uname().nodename not in {str(value) for value in facts.values()}
