"""docs/engines.md shows what frameworks.yaml says, and what the drivers are."""

from __future__ import annotations

from pathlib import Path

import pytest

from assets.benchmark.engines.protocol import EngineDriver
from assets.benchmark.engines.registry import DRIVERS
from assets.matrix.dimensions import load_frameworks, load_hardware
from assets.matrix.rules import Launch, reject_launch
from assets.matrix.support_table import support_table
from tests.unit.matrix.examples import LLAMA_31_8B

PAGE = (Path(__file__).parents[3] / "docs" / "engines.md").read_text(encoding="utf-8")


def test_the_page_has_the_table_that_the_data_gives() -> None:
    """Made again with `python -m assets.matrix.support_table`."""
    assert support_table() in PAGE


def test_a_cell_says_what_the_rules_of_the_matrix_say() -> None:
    """For a model that every engine has code for: where the table says no, the rule about compute capability rejects the launch."""
    rows = {tuple(cell.strip() for cell in line.split("|")[1:3]): line.split("|")[3:7] for line in support_table().splitlines()[2:]}
    gpus = {"a100-80gb-x1": 1, "l4-x1": 2, "h100-80gb-x1": 3}
    for framework in load_frameworks().values():
        if framework.framework in {"llama.cpp", "transformers"}:
            continue
        for quantization in framework.quantizations:
            cells = rows[f"{framework.framework} {framework.version}", quantization]
            for hardware_id, column in gpus.items():
                rejection = reject_launch(Launch(LLAMA_31_8B, quantization, framework, load_hardware()[hardware_id]))
                rejected = rejection is not None and "compute capability" in rejection.detail
                assert cells[column].strip() == ("no" if rejected else "yes")


@pytest.mark.parametrize("driver", DRIVERS.values(), ids=lambda driver: driver.name)
def test_the_page_describes_every_driver(driver: EngineDriver) -> None:
    """Its image at the version of the matrix, its paths, and what can be read of its metrics page."""
    [row] = [line for line in PAGE.splitlines() if line.startswith(f"| {driver.name} |")]
    framework = load_frameworks().get(driver.name)
    image = driver.image(framework.version) if framework else None
    assert (f"`{image}`" if image else "none") in row
    for path in (driver.health_path, driver.ready_path, driver.metrics_path):
        assert path is None or f"`{path}`" in row
    [figures] = [line for line in PAGE.splitlines() if line.startswith(f"| {driver.name}: figures |")]
    for figure in driver.metrics.figures():
        assert f"`{figure}`" in figures
