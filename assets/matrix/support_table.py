"""The table of engines, quantizations and GPU generations in docs/engines.md: `python -m assets.matrix.support_table` prints it."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from assets.matrix.dimensions import QuantizationSupport, load_frameworks, load_hardware

# NVIDIA's names of the compute capabilities in hardware.yaml: https://developer.nvidia.com/cuda-gpus
GENERATIONS: Mapping[float, str] = {8.0: "Ampere", 8.9: "Ada", 9.0: "Hopper"}


def support_table() -> str:
    """Markdown: a row for each quantization of each engine, a column for each GPU generation that Dyno's hardware has, and the source."""
    gpus = _gpus_by_capability()
    columns = [f"{GENERATIONS[capability]} {capability} ({', '.join(gpus[capability])})" for capability in sorted(gpus)]
    lines = [
        f"| engine | quantization | CPU | {' | '.join(columns)} | source |",
        f"|---|---|---|{'---|' * len(columns)}---|",
    ]
    for framework in load_frameworks().values():
        for quantization, support in framework.quantizations.items():
            cells = [_cell(support, capability) for capability in (None, *sorted(gpus))]
            lines.append(f"| {framework.framework} {framework.version} | {quantization} | {' | '.join(cells)} | {support.source} |")
    return "\n".join(lines)


def _cell(support: QuantizationSupport, capability: float | None) -> str:
    """Without a needed capability an engine is driven on the CPU, and only there."""
    if support.min_compute_capability is None:
        return "yes" if capability is None else "-"
    return "yes" if capability is not None and capability >= support.min_compute_capability else "no"


def _gpus_by_capability() -> dict[float, list[str]]:
    found: dict[float, list[str]] = {}
    for hardware in load_hardware().values():
        if hardware.compute_capability is not None:
            types = found.setdefault(hardware.compute_capability, [])
            types += [] if hardware.gpu_type in types else [hardware.gpu_type]
    return found


if __name__ == "__main__":
    sys.stdout.write(support_table() + "\n")
