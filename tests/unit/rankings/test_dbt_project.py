"""What the dbt project and the code must agree on."""

from __future__ import annotations

from pathlib import Path

import yaml

from assets.benchmark.load.statistics import QUALITY_FLAGS

PROJECT = Path(__file__).parents[3] / "dbt_project"


def test_every_disqualifying_flag_is_one_that_the_load_client_gives() -> None:
    """A flag that is misspelt here would let wrong numbers rank."""
    flags = yaml.safe_load((PROJECT / "dbt_project.yml").read_text())["vars"]["disqualifying_flags"]
    assert set(flags) <= set(QUALITY_FLAGS)
    assert flags
