"""What the machine did while a load point ran: host CPU, the engine's process tree, and each NVIDIA GPU where a driver is there.

A thread of the worker samples twice a second. Utilization of `host` is the share of all cores (0 to 100);
of `engine` it is in percent of one core, so two busy cores are 200.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self, TypeVar

import psutil
import pynvml

from assets.benchmark.job import TelemetrySample

SAMPLE_INTERVAL_S = 0.5
_MILLIWATT = 1e-3

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TelemetrySummary:
    """Means and maxima over the samples; None where nothing could be read. `notes` says what could not, and why."""

    cpu_utilization_pct: float | None
    engine_memory_bytes_max: int | None
    gpu_utilization_pct: float | None
    gpu_memory_bytes_max: int | None
    gpu_names: tuple[str, ...]
    notes: tuple[str, ...]


class GpuReader:
    """Reads every GPU that this process sees through NVML, as a context manager. Without a driver it reads none, and `note` says so.

    A deployment without GPUs reads none either (`enabled` false): what others do on this machine's GPUs is not its own.
    """

    def __init__(self, enabled: bool = True) -> None:
        self._handles: list[object] = []
        self.note: str | None = None
        if not enabled:
            return
        try:
            pynvml.nvmlInit()
            self._handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        except pynvml.NVMLError as error:
            self.note = f"no GPU telemetry: {error}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._handles:
            pynvml.nvmlShutdown()
            self._handles = []

    def names(self) -> tuple[str, ...]:
        """The GPUs' product names, for example `NVIDIA H100 80GB HBM3`."""
        return tuple(_text(pynvml.nvmlDeviceGetName(handle)) for handle in self._handles)

    def read(self, now: str) -> list[TelemetrySample]:
        """One sample a GPU; a value that the driver does not give is None."""
        return [self._read_one(index, handle, now) for index, handle in enumerate(self._handles)]

    def _read_one(self, index: int, handle: object, now: str) -> TelemetrySample:
        memory = self._value(lambda: int(pynvml.nvmlDeviceGetMemoryInfo(handle).used))
        utilization = self._value(lambda: float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu))
        power = self._value(lambda: float(pynvml.nvmlDeviceGetPowerUsage(handle) * _MILLIWATT))
        return TelemetrySample(now, f"gpu{index}", utilization, memory, power)

    def _value(self, ask: Callable[[], T]) -> T | None:
        try:
            return ask()
        except pynvml.NVMLError as error:
            self.note = f"GPU telemetry is incomplete: {error}"
            return None


class Sampler:
    """Samples from entry to exit, both included. Use as a context manager, then read `samples` and `summary`."""

    def __init__(self, engine_pid: int | None, gpus: GpuReader, interval_s: float = SAMPLE_INTERVAL_S) -> None:
        self.samples: list[TelemetrySample] = []
        self._notes: list[str] = []
        self._gpus = gpus
        self._interval_s = interval_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._engine: dict[int, psutil.Process] = {}
        self._engine_pid = engine_pid

    def __enter__(self) -> Self:
        psutil.cpu_percent(None)  # the first call only marks the start
        self._engine_sample("")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()

    def summary(self) -> TelemetrySummary:
        """The samples in four numbers. GPU memory is the largest sum over the GPUs at one instant."""
        gpu = [sample for sample in self.samples if sample.device.startswith("gpu")]
        by_instant: dict[str, int] = {}
        for sample in gpu:
            by_instant[sample.sampled_at] = by_instant.get(sample.sampled_at, 0) + (sample.memory_bytes or 0)
        return TelemetrySummary(
            cpu_utilization_pct=_mean([s.utilization_pct for s in self.samples if s.device == "host"]),
            engine_memory_bytes_max=max((s.memory_bytes for s in self.samples if s.device == "engine" and s.memory_bytes), default=None),
            gpu_utilization_pct=_mean([s.utilization_pct for s in gpu]),
            gpu_memory_bytes_max=max(by_instant.values(), default=None) or None,
            gpu_names=self._gpus.names(),
            notes=tuple(dict.fromkeys([*self._notes, *([self._gpus.note] if self._gpus.note else [])])),
        )

    def _run(self) -> None:
        last = False
        while not last:
            last = self._done.wait(self._interval_s)
            now = datetime.now(UTC).isoformat()
            self.samples.append(TelemetrySample(now, "host", psutil.cpu_percent(None), psutil.virtual_memory().used))
            engine = self._engine_sample(now)
            if engine is not None:
                self.samples.append(engine)
            self.samples.extend(self._gpus.read(now))

    def _engine_sample(self, now: str) -> TelemetrySample | None:
        """CPU and resident memory of the engine's process tree. Kept process objects are what makes `cpu_percent` a rate."""
        if self._engine_pid is None:
            return None
        try:
            root = self._engine.setdefault(self._engine_pid, psutil.Process(self._engine_pid))
            for child in root.children(recursive=True):
                self._engine.setdefault(child.pid, child)
        except psutil.NoSuchProcess:
            self._notes.append("the engine's process ended while it was sampled")
            return None
        cpu_pct, memory_bytes = 0.0, 0
        for pid, process in list(self._engine.items()):
            try:
                with process.oneshot():
                    memory_bytes += process.memory_info().rss
                    cpu_pct += process.cpu_percent(None)
            except psutil.NoSuchProcess:
                del self._engine[pid]
        return TelemetrySample(now, "engine", cpu_pct, memory_bytes)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
