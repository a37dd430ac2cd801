"""Batches: one deployment each, at most 100, every feasible configuration in exactly one, keys that stay."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.matrix.batches import KUBERNETES_LABEL_LENGTH, MAX_BATCH_SIZE, batches_of, partitions_name
from assets.matrix.dimensions import cpu_hardware, preset
from assets.matrix.errors import PartitionKeyCollisionError
from assets.matrix.generate import generate
from assets.matrix.spec import Workload
from assets.models.facts import ModelFacts
from tests.unit.matrix.examples import EXAMPLES, LLAMA_31_8B, LOCAL_82M

GPU = preset("gpu")
LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


@pytest.mark.parametrize("facts", EXAMPLES, ids=lambda facts: facts.model_id)
def test_every_feasible_configuration_is_in_exactly_one_batch(facts: ModelFacts) -> None:
    matrix = generate(facts, GPU)
    batches = batches_of([matrix])
    batched = [configuration.config_id for batch in batches for configuration in batch.configurations]
    assert sorted(batched) == sorted(cell.configuration.config_id for cell in matrix.cells if cell.feasible)
    assert len({batch.partition_key for batch in batches}) == len(batches)
    for batch in batches:
        assert 0 < len(batch.configurations) <= MAX_BATCH_SIZE
        assert {configuration.deployment.deployment_id for configuration in batch.configurations} == {batch.deployment.deployment_id}
        assert LABEL.fullmatch(batch.partition_key)
        assert len(batch.partition_key) <= KUBERNETES_LABEL_LENGTH


def test_keys_are_readable() -> None:
    gpu = batches_of([generate(LLAMA_31_8B, GPU)])[0]
    assert re.fullmatch(r"llama-3\.1-8b__fp16__vllm__[0-9a-f]{8}-1", gpu.partition_key)
    local = batches_of([generate(LOCAL_82M, preset("local"))])
    assert re.fullmatch(r"dyno-82m__f16__llama\.cpp__chat__[0-9a-f]{8}-1", local[0].partition_key)
    assert partitions_name("h100-80gb-x4") == "batches_h100_80gb_x4"


def test_local_batches_hold_one_workload_in_rising_load() -> None:
    for batch in batches_of([generate(LOCAL_82M, preset("local"))]):
        points = [configuration.load_point for configuration in batch.configurations]
        assert len({point.workload.name for point in points}) == 1
        assert [point.concurrency for point in points] == [1, 2, 4, 8, 16]


def test_short_requests_come_first_and_load_rises_within_a_workload() -> None:
    batch = max(batches_of([generate(LLAMA_31_8B, GPU)]), key=lambda b: len(b.configurations))
    order = [
        (c.load_point.workload.input_tokens + c.load_point.workload.output_tokens, c.load_point.concurrency) for c in batch.configurations
    ]
    assert order == sorted(order)


@settings(max_examples=20)
@given(
    st.sets(st.sampled_from([h.hardware_id for h in GPU.hardware]), min_size=1),
    st.sets(st.sampled_from([f.framework for f in GPU.frameworks]), min_size=1),
    st.sets(st.sampled_from(list(GPU.quantizations)), min_size=1),
    st.integers(0, 8),
)
def test_keys_stay_when_the_matrix_grows(hardware: set[str], frameworks: set[str], quantizations: set[str], extra_workloads: int) -> None:
    """What was in a batch stays in the batch of that key when hardware, engines, quantizations or workloads are added."""
    before = generate(LLAMA_31_8B, GPU.only(sorted(hardware), sorted(frameworks), sorted(quantizations)))
    more = tuple(Workload(f"extra_{number}", 100 + number, 10) for number in range(extra_workloads))
    after = batches_of([generate(LLAMA_31_8B, replace(GPU, workloads=GPU.workloads + more))])
    key_of = {c.config_id: batch.partition_key for batch in after for c in batch.configurations}
    for batch in batches_of([before]):
        assert {key_of[c.config_id] for c in batch.configurations} == {batch.partition_key}
    assert all(len(batch.configurations) <= MAX_BATCH_SIZE for batch in after)


@settings(max_examples=20)
@given(st.integers(200, 4000))
def test_keys_do_not_depend_on_what_is_feasible(memory_mib: int) -> None:
    def keys(mib: int) -> dict[str, str]:
        dimensions = replace(preset("local"), hardware=(cpu_hardware(mib << 20),), split_batches_by_workload=False)
        batches = batches_of([generate(LOCAL_82M, dimensions)])
        return {c.config_id: batch.partition_key for batch in batches for c in batch.configurations}

    large = keys(64_000)
    assert all(large[config_id] == key for config_id, key in keys(memory_mib).items())


def test_a_long_model_id_is_cut_to_fit_a_label() -> None:
    long = replace(LOCAL_82M, model_id="some-organisation--" + "a-very-long-model-name-" * 3)
    batches = batches_of([generate(long, preset("local"))])
    assert all(len(batch.partition_key) <= KUBERNETES_LABEL_LENGTH for batch in batches)
    assert len({batch.partition_key for batch in batches}) == len(batches)


def test_two_batches_with_one_key_are_an_error() -> None:
    matrix = generate(LOCAL_82M, preset("local"))
    with pytest.raises(PartitionKeyCollisionError, match="dyno-82m__f16"):
        batches_of([matrix, matrix])
