"""The door of the catalog stage: the assets `reference_data` and `benchmark_results`, and the checks of what is stored.

No `from __future__ import annotations` here: Dagster reads the annotations.
"""

from dataclasses import asdict

import dagster as dg

from assets.catalog.checks import CHECKS, CheckOutcome
from assets.catalog.repository import Catalog
from assets.matrix.dimensions import load_hardware

GROUP = "catalog"
RESULTS_KEY = dg.AssetKey("benchmark_results")


def benchmark_key(hardware_id: str) -> dg.AssetKey:
    """The key of the benchmark asset of a hardware config: `benchmark_h100_80gb_x4`."""
    return dg.AssetKey("benchmark_" + hardware_id.replace("-", "_").replace(".", "_"))


@dg.asset(group_name=GROUP, kinds={"postgres"})
def reference_data(context: dg.AssetExecutionContext, catalog: dg.ResourceParam[Catalog]) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster refuses a parameter here
    """Hardware configs, their prices, engines and use cases: facts with their sources, from `assets/matrix/data`."""
    changes = catalog.load_reference_data()
    if any(asdict(changes).values()):
        catalog.bump_catalog_version()  # the API reads use cases and their bounds from here
    context.log.info("new or changed rows: %s", asdict(changes))
    return dg.MaterializeResult(metadata={f"{name}_changed": count for name, count in asdict(changes).items()})


@dg.asset(
    key=RESULTS_KEY,
    group_name=GROUP,
    kinds={"postgres"},
    # Not partitioned: one row of the lineage for all batches. AllPartitionMapping, so that it needs no batch in particular.
    deps=[dg.AssetDep(benchmark_key(hardware_id), partition_mapping=dg.AllPartitionMapping()) for hardware_id in load_hardware()],
    check_specs=[dg.AssetCheckSpec(check.name, asset=RESULTS_KEY, description=check.description) for check in CHECKS],
)
def benchmark_results(context: dg.AssetExecutionContext, catalog: dg.ResourceParam[Catalog]) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster refuses a parameter here
    """Every measurement, as the benchmark assets stored it: counted, checked, its statistics and coming partitions made ready."""
    made = catalog.maintain()
    if made:
        context.log.info("made partitions %s", ", ".join(made))
    counts = catalog.result_counts()
    return dg.MaterializeResult(
        metadata={
            "results": sum(row.results for row in counts),
            "storage": str(catalog.edition()),
            "partitions_made": len(made),
            "by_kind_and_hardware": dg.MetadataValue.table(
                [dg.TableRecord({"kind": row.kind, "hardware": row.hardware_id, "results": row.results}) for row in counts],
                dg.TableSchema([dg.TableColumn("kind"), dg.TableColumn("hardware"), dg.TableColumn("results", "int")]),
            ),
        },
        check_results=[_check_result(outcome) for outcome in catalog.check_results()],
    )


def _check_result(outcome: CheckOutcome) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=outcome.check.name,
        asset_key=RESULTS_KEY,
        passed=outcome.passed,
        description="; ".join(outcome.examples) or None,
        metadata={"violations": outcome.violations},
    )
