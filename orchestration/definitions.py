"""The code location: every stage's door, the jobs, the sensors, the resources. Loaded by `workspace.yaml`."""

from __future__ import annotations

from dagster import Definitions, in_process_executor

from assets.benchmark.assets import BENCHMARK_ASSETS, BENCHMARK_CHECKS
from assets.catalog.assets import benchmark_results, reference_data
from assets.matrix.assets import test_matrix
from assets.models.assets import model
from assets.rankings.assets import build_rankings_definitions
from orchestration.jobs import JOBS, daily_rankings
from orchestration.resources import build_resources
from orchestration.sensors import build_sensors
from orchestration.settings import load_settings


def build_definitions() -> Definitions:
    """Everything, under the settings of the environment."""
    settings = load_settings()
    return Definitions.merge(
        Definitions(
            assets=[model, test_matrix, *BENCHMARK_ASSETS, reference_data, benchmark_results],
            asset_checks=BENCHMARK_CHECKS,
            jobs=JOBS,
            schedules=[daily_rankings],
            sensors=build_sensors(settings),
            resources=build_resources(settings),
            # A run has one or two steps: a process for each would pay the import of the code location every time.
            executor=in_process_executor,
        ),
        build_rankings_definitions(settings.state_dir),
    )


defs = build_definitions()
