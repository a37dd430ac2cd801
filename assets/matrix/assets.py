"""The door of the matrix stage: the asset `test_matrix`, one partition a model.

It stores every cell with its verdict and adds the feasible batches to the partitions of the benchmark asset of their hardware config.
"""

from collections import defaultdict
from collections.abc import Mapping

import dagster as dg
from dagster import ResourceParam

from assets.matrix.batches import batches_of, partitions_name
from assets.matrix.errors import MatrixModelError
from assets.matrix.generate import matrices_of
from assets.matrix.store import MatrixCounts, MatrixStore
from assets.models.assets import MODEL_KEY, models_partitions

COUNTS_AGREE = "counts_agree"
TEST_MATRIX_KEY = dg.AssetKey("test_matrix")


def _table(header: tuple[str, str], rows: Mapping[str, int]) -> str:
    lines = [f"| {header[0]} | {header[1]} |", "| --- | ---: |", *(f"| {name} | {count:,} |" for name, count in rows.items())]
    return "\n".join(lines)


def _check(generated: int, counts: MatrixCounts) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=COUNTS_AGREE,
        asset_key=TEST_MATRIX_KEY,
        # The store may also hold configurations of earlier engine versions, which are still what some measurement was made of.
        passed=counts.agree and counts.generated >= generated,
        metadata={"stored": counts.generated, "feasible": counts.feasible, "rejected": sum(counts.rejected.values())},
    )


@dg.asset(
    key=TEST_MATRIX_KEY,
    group_name="matrix",
    partitions_def=models_partitions,
    deps=[MODEL_KEY],
    kinds={"python", "postgres"},
    check_specs=[
        dg.AssetCheckSpec(
            COUNTS_AGREE,
            asset=TEST_MATRIX_KEY,
            description="In the catalog, every configuration of the model has one verdict: generated = feasible + rejected.",
        )
    ],
)
def test_matrix(context: dg.AssetExecutionContext, catalog: ResourceParam[MatrixStore]) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster refuses a parameter here
    """Every configuration of a model over hardware, engines, quantizations, workloads and load levels: feasible, or rejected and why."""
    model_id = context.partition_key
    facts = catalog.model(model_id)
    try:
        matrices = matrices_of(facts, catalog.model_versions(model_id))
    except MatrixModelError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    batches = batches_of(matrices)
    catalog.save_matrix(matrices, batches)

    keys: dict[str, list[str]] = defaultdict(list)
    for batch in batches:
        keys[batch.deployment.hardware_id].append(batch.partition_key)
    for hardware_id, partition_keys in keys.items():
        context.instance.add_dynamic_partitions(partitions_name(hardware_id), partition_keys)

    generated = sum(matrix.generated for matrix in matrices)
    rejected: dict[str, int] = defaultdict(int)
    for matrix in matrices:
        for code, count in matrix.rejected.items():
            rejected[code] += count
    context.log.info(
        "%s: %d configurations, %d feasible, %d batches", model_id, generated, generated - sum(rejected.values()), len(batches)
    )
    return dg.MaterializeResult(
        metadata={
            "generated": generated,
            "feasible": sum(matrix.feasible for matrix in matrices),
            "batches": len(batches),
            "rejected": dg.MetadataValue.md(_table(("Reason", "Configurations"), rejected)),
            "batches_by_hardware": dg.MetadataValue.md(_table(("Hardware", "Batches"), {h: len(k) for h, k in keys.items()})),
        },
        check_results=[_check(generated, catalog.matrix_counts(model_id))],
    )
