"""Every option that a driver can write is one that its engine knows, by the engine's own `--help`."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence

import pytest

from assets.benchmark.engines.environments import in_environment, process_environment
from assets.benchmark.engines.registry import driver_for
from tests.integration.benchmark.environments import environment_or_skip
from tests.unit.benchmark.engine_launches import LAUNCH, options_of

pytestmark = pytest.mark.engine
HELP: dict[str, Sequence[str]] = {
    "vllm": ("vllm", "serve", "--help=all"),
    "tgi": ("text-generation-launcher", "--help"),
    "lmdeploy": ("lmdeploy", "serve", "api_server", "--help"),
    "sglang": ("python3", "-m", "sglang.launch_server", "--help"),
    "tensorrt-llm": ("trtllm-serve", "serve", "--help"),
    "transformers": ("transformers", "serve", "--help"),
}
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")


@pytest.mark.parametrize("engine", HELP)
def test_an_engine_knows_every_option_that_its_driver_writes(engine: str) -> None:
    environment = environment_or_skip(engine)
    line = in_environment(engine, LAUNCH.__class__("", 0, 1, 1, environment=environment), HELP[engine])
    variables = {"COLUMNS": "400", **driver_for(engine).variables(LAUNCH)}
    shown = subprocess.run(line, env=process_environment(environment, variables), capture_output=True, text=True, timeout=240, check=False)
    known = set(OPTION.findall(shown.stdout))
    assert len(known) > len(options_of(driver_for(engine))), shown.stderr[-2000:]
    assert options_of(driver_for(engine)) - known == set()
