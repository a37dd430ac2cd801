"""The asset `test_matrix`: it stores the matrix, lists the feasible batches as partitions of their hardware, and checks the counts."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg
import pytest

from assets.matrix.assets import COUNTS_AGREE, test_matrix
from assets.matrix.batches import partitions_name
from assets.matrix.generate import Matrix
from assets.matrix.spec import Batch, ModelVersion
from assets.matrix.store import MatrixCounts, MatrixStore
from assets.models.facts import ModelFacts
from tests.unit.matrix.examples import LLAMA_31_8B, LOCAL_82M

door = test_matrix
del test_matrix  # pytest would take it for a test


class MemoryStore(MatrixStore):
    """Keeps what it is given. `lost` configurations disappear on the way in."""

    def __init__(self, facts: ModelFacts, versions: Sequence[ModelVersion] = (), lost: int = 0) -> None:
        self.facts, self.versions, self.lost = facts, versions, lost
        self.matrices: Sequence[Matrix] = ()
        self.batches: Sequence[Batch] = ()

    def model(self, model_id: str) -> ModelFacts:
        assert model_id == self.facts.model_id
        return self.facts

    def model_versions(self, model_id: str) -> Sequence[ModelVersion]:
        assert model_id == self.facts.model_id
        return self.versions

    def save_matrix(self, matrices: Sequence[Matrix], batches: Sequence[Batch]) -> None:
        self.matrices, self.batches = matrices, batches

    def matrix_counts(self, model_id: str) -> MatrixCounts:
        assert model_id == self.facts.model_id
        feasible = sum(matrix.feasible for matrix in self.matrices)
        rejected = {code: count for matrix in self.matrices for code, count in matrix.rejected.items()}
        return MatrixCounts(feasible + sum(rejected.values()) - self.lost, feasible, rejected)


def materialize(store: MemoryStore, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    instance.add_dynamic_partitions("models", [store.facts.model_id])
    return dg.materialize([door], partition_key=store.facts.model_id, resources={"catalog": store}, instance=instance)


def test_a_gpu_model_gets_partitions_on_every_hardware_config_that_can_run_it() -> None:
    store = MemoryStore(LLAMA_31_8B)
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(store, instance)
        listed = {
            hardware_id: instance.get_dynamic_partitions(partitions_name(hardware_id)) for hardware_id in store.matrices[0].hardware_ids
        }
    assert result.success
    assert len(listed) == 15
    assert sorted(key for keys in listed.values() for key in keys) == sorted(batch.partition_key for batch in store.batches)
    for batch in store.batches:
        assert batch.partition_key in listed[batch.deployment.hardware_id]

    materialization = result.asset_materializations_for_node("test_matrix")[0]
    assert materialization.metadata["generated"].value == 9000
    table = materialization.metadata["rejected"].value
    assert isinstance(table, str)
    assert "| vram |" in table


def test_a_local_model_gets_partitions_for_its_versions_on_the_cpu() -> None:
    store = MemoryStore(LOCAL_82M, [ModelVersion("dyno-82m", "q8_0", "abc")])
    with dg.DagsterInstance.ephemeral() as instance:
        materialize(store, instance)
        keys = instance.get_dynamic_partitions("batches_cpu")
        materialize(store, instance)
        assert instance.get_dynamic_partitions("batches_cpu") == keys  # materializing again adds nothing
    assert {key.split("__")[1] for key in keys} == {"q8_0"}
    assert {key.split("__")[3] for key in keys} == {"chat", "chat_short", "code_completion"}  # the rest is longer than its context


@pytest.mark.parametrize(("lost", "passed"), [(0, True), (1, False)])
def test_the_check_notices_a_configuration_without_a_verdict(lost: int, passed: bool) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(MemoryStore(LLAMA_31_8B, lost=lost), instance)
    (check,) = result.get_asset_check_evaluations()
    assert check.check_name == COUNTS_AGREE
    assert check.passed is passed
