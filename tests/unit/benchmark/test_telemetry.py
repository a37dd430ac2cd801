"""The sampler sees the machine and the engine's process tree; a machine without a driver is said to have none."""

from __future__ import annotations

import os

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


def test_host_facts_do_not_name_the_machine() -> None:
    facts = host_facts()
    assert facts["logical_cores"] == os.cpu_count()
    assert os.uname().nodename not in {str(value) for value in facts.values()}
