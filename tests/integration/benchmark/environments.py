"""Engines in Python environments of their own, for tests that start them: DYNO_TEST_ENGINE_ENVIRONMENTS=FOLDER, with FOLDER/vllm etc."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from assets.benchmark.engines.environments import environment_of

VARIABLE = "DYNO_TEST_ENGINE_ENVIRONMENTS"


def environment_or_skip(engine: str) -> Path:
    """The engine's environment; skips the test where there is none."""
    environment = environment_of(os.environ.get(VARIABLE), engine)
    if environment is None:
        pytest.skip(f"{engine} is not installed for tests: install it into FOLDER/{engine} and set {VARIABLE}=FOLDER (docs/engines.md)")
    return environment
