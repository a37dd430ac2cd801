"""What can be run as a whole, from the UI, by a sensor or on a schedule."""

from __future__ import annotations

from dagster import AssetSelection, DefaultScheduleStatus, ScheduleDefinition, define_asset_job
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from assets.benchmark.assets import HARDWARE, suffix_of
from assets.catalog.assets import RESULTS_KEY
from assets.matrix.assets import TEST_MATRIX_KEY
from assets.models.assets import MODEL_KEY
from assets.rankings.assets import GROUP as RANKINGS_GROUP

DAILY_CRON = "15 3 * * *"

register_model = define_asset_job(
    "register_model",
    AssetSelection.assets(MODEL_KEY, TEST_MATRIX_KEY),
    description="A model's facts and weights, then its matrix and the partitions of its batches.",
)
measure_jobs: dict[str, UnresolvedAssetJobDefinition] = {
    hardware.hardware_id: define_asset_job(
        f"measure_{suffix_of(hardware.hardware_id)}",
        AssetSelection.assets(f"benchmark_{suffix_of(hardware.hardware_id)}"),
        description=f"One batch on {hardware.hardware_id}.",
    )
    for hardware in HARDWARE
}
rankings = define_asset_job(
    "rankings",
    AssetSelection.assets("reference_data", RESULTS_KEY) | AssetSelection.groups(RANKINGS_GROUP),
    description="Check the stored results, then build and test all marts.",
)
JOBS = (register_model, *measure_jobs.values(), rankings)

daily_rankings = ScheduleDefinition(
    name="daily_rankings",
    job=rankings,
    cron_schedule=DAILY_CRON,
    execution_timezone="UTC",
    default_status=DefaultScheduleStatus.RUNNING,
    description="Prices and days pass without new results: build the marts once a day all the same.",
)
