"""The code location, as Dagster's own processes load it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from assets.matrix.batches import partitions_name
from assets.matrix.dimensions import load_hardware
from orchestration.settings import REPO_ROOT

LOAD = """
import json, sys
from orchestration.definitions import defs
graph = defs.resolve_asset_graph()
print(json.dumps({
    "assets": {key.to_user_string(): {
        "group": graph.get(key).group_name,
        "partitions": getattr(graph.get(key).partitions_def, "name", None),
        "parents": sorted(parent.to_user_string() for parent in graph.get(key).parent_keys),
    } for key in graph.get_all_asset_keys()},
    "checks": sorted(f"{key.asset_key.to_user_string()}:{key.name}" for key in graph.asset_check_keys),
    "sensors": {sensor.name: sensor.default_status.value for sensor in defs.sensors},
    "modules": sorted(sys.modules),
}))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the definitions hold, told by a process that loaded them and nothing else."""
    environment = {**os.environ, "PYTHONPATH": str(REPO_ROOT), "DYNO_STATE_DIR": str(tmp_path_factory.mktemp("state"))}
    ended = subprocess.run([sys.executable, "-c", LOAD], cwd=REPO_ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


def test_each_hardware_config_has_its_asset_its_partitions_and_its_check(loaded: dict[str, Any]) -> None:
    """So that only batches which can run there are listed."""
    for hardware_id in load_hardware():
        name = f"benchmark_{hardware_id.replace('-', '_')}"
        assert loaded["assets"][name] == {"group": "benchmark", "partitions": partitions_name(hardware_id), "parents": ["test_matrix"]}
        assert f"{name}:no_batch_needs_review" in loaded["checks"]


def test_data_flows_from_models_to_rankings(loaded: dict[str, Any]) -> None:
    """Each stage hangs on the one before: nothing in the graph is an island."""
    assets = loaded["assets"]
    assert assets["test_matrix"]["parents"] == ["model"]
    assert len(assets["benchmark_results"]["parents"]) == len(load_hardware())
    models = {path.stem for path in (REPO_ROOT / "dbt_project" / "models").rglob("*.sql")}
    assert {name.rpartition("/")[2] for name, asset in assets.items() if asset["group"] == "rankings"} == models
    assert all(asset["parents"] for name, asset in assets.items() if name not in {"model", "reference_data"})
    assert "benchmark_results" in assets["staging/stg_benchmark_results"]["parents"]


def test_sensors_are_on_from_the_start(loaded: dict[str, Any]) -> None:
    """A model that appears on the hub is picked up without a click."""
    assert loaded["sensors"] == dict.fromkeys(("hub_models", "measure_found_models", "new_results"), "RUNNING")


@pytest.mark.parametrize("slow", ["dagster_dbt", "huggingface_hub", "pandas", "scipy", "xllamacpp", "dbt"])
def test_loading_imports_nothing_slow_that_it_does_not_need(loaded: dict[str, Any], slow: str) -> None:
    """Every run's process pays for the import; benchmarks/code_location_load.py measures it."""
    assert slow not in loaded["modules"]


def test_dagster_accepts_the_workspace(tmp_path: Path) -> None:
    """What `dagster dev` and CI of other projects would run on it."""
    ended = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-w", "workspace.yaml"],
        cwd=REPO_ROOT,
        env={**os.environ, "PYTHONPATH": str(REPO_ROOT), "DYNO_STATE_DIR": str(tmp_path), "DAGSTER_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
