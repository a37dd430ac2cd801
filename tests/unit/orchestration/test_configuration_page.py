"""docs/configuration.md is the settings' own words."""

from __future__ import annotations

import pytest

from orchestration.settings import REPO_ROOT, Settings

PAGE = (REPO_ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_as_it_describes_itself(name: str) -> None:
    """A person who reads the page finds each variable, with the description that the code has."""
    assert f"| `DYNO_{name.upper()}` | " in PAGE
    assert f"| {Settings.model_fields[name].description} |" in PAGE
