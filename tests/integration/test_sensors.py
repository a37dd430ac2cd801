"""The sensors, ticked by hand on a Dagster instance, against a hub that answers real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRunStatus, SensorResult, SkipReason, build_sensor_context
from dagster._core.test_utils import create_run_for_test

from assets.catalog.repository import Catalog
from assets.matrix.batches import partitions_name
from assets.matrix.dimensions import load_hardware
from orchestration.jobs import rankings
from orchestration.sensors import HUB_SENSOR, MODELS_PER_TICK, RANKING_ATTEMPTS, build_sensors, new_results
from orchestration.settings import Settings
from orchestration.stale_runs import fail_stale_runs
from tests.hub_standin import SMALL, TINY, HubStandin, gguf_files, params_of, safetensors_files

GGUF = gguf_files(TINY, ["q8_0"])


@pytest.fixture(scope="module")
def instance() -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral() as opened:
        yield opened


@pytest.fixture
def hub() -> Iterator[HubStandin]:
    with HubStandin(page_size=3) as standin:
        yield standin


@pytest.fixture
def settings(hub: HubStandin, tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path, hub_endpoint=hub.endpoint, followed_authors=("acme",), followed_tags=("dyno-test",))


def tick(settings: Settings, instance: DagsterInstance, cursor: str | None = None) -> SensorResult | SkipReason:
    """One evaluation of the hub sensor."""
    [sensor] = [sensor for sensor in build_sensors(settings) if sensor.name == HUB_SENSOR]
    context = build_sensor_context(instance=instance, cursor=cursor, resources={"models_config": settings.models_config()})
    result = sensor(context)
    assert isinstance(result, SensorResult | SkipReason)
    return result


def found(result: SensorResult | SkipReason) -> list[str | None]:
    """Model ids of the requested runs."""
    assert isinstance(result, SensorResult)
    return [request.partition_key for request in result.run_requests or ()]


def partitions(result: SensorResult | SkipReason) -> dict[str, list[str]]:
    """Added keys by the name of the partitions."""
    assert isinstance(result, SensorResult)
    return {request.partitions_def_name: list(request.partition_keys) for request in result.dynamic_partitions_requests or ()}


def test_one_tick_adds_the_model_and_its_feasible_batches(settings: Settings, hub: HubStandin, instance: DagsterInstance) -> None:
    """A safetensors model gets partitions on every GPU config and, as it will be converted, on the CPU; and one run that registers it."""
    hub.publish("acme/small", safetensors_files(SMALL), params=params_of(SMALL))
    result = tick(settings, instance)
    assert found(result) == ["acme--small"]
    added = partitions(result)
    assert added["models"] == ["acme--small"]
    # 12 heads in 4 groups: 8 GPUs cannot share them
    expected = {partitions_name(hardware_id) for hardware_id in load_hardware() if not hardware_id.endswith("x8")}
    assert set(added) == {"models"} | expected
    assert {key.split("__")[1] for key in added["batches_cpu"]} == {"f16", "q8_0", "q4_0"}
    assert isinstance(result, SensorResult)
    assert result.run_requests is not None
    assert result.run_requests[0].run_config["ops"]["model"]["config"] == {"hub_id": "acme/small"}


def test_the_cursor_goes_on_where_it_was(settings: Settings, hub: HubStandin, instance: DagsterInstance) -> None:
    """A model is found once; two that change within the same instant are both found, also when one of them comes late."""
    instant = datetime(2026, 11, 1, tzinfo=UTC)
    hub.publish("acme/first", GGUF, last_modified=instant)
    first = tick(settings, instance)
    assert found(first) == ["acme--first"]
    assert isinstance(first, SensorResult)
    assert found(tick(settings, instance, first.cursor)) == []
    hub.publish("acme/second", GGUF, last_modified=instant)
    assert found(tick(settings, instance, first.cursor)) == ["acme--second"]


def test_new_weights_are_a_new_run_and_new_words_are_not(settings: Settings, hub: HubStandin, instance: DagsterInstance) -> None:
    """The run key follows the weights: Dagster starts no second run for a changed README."""

    def run_key(cursor: str | None) -> tuple[str | None, str | None]:
        result = tick(settings, instance, cursor)
        assert isinstance(result, SensorResult)
        assert result.run_requests
        return result.run_requests[0].run_key, result.cursor

    hub.publish("acme/model", GGUF)
    original, cursor = run_key(None)
    hub.change("acme/model", files={**GGUF, "README.md": b"words"})
    reworded, cursor = run_key(cursor)
    hub.change("acme/model", files=gguf_files(TINY, ["q8_0"], seed=2))
    retrained, _ = run_key(cursor)
    assert original == reworded != retrained


def test_tags_are_followed_over_pages_and_a_tick_takes_its_share(settings: Settings, hub: HubStandin, instance: DagsterInstance) -> None:
    """More models than a page of the hub and than a tick: the oldest first, the rest with the next ticks, none lost."""
    total = MODELS_PER_TICK + 5
    for number in range(total):
        hub.publish(f"other/model-{number:02}", GGUF, tags=["dyno-test"], last_modified=datetime(2026, 10, 1, 0, number, tzinfo=UTC))
    first = tick(settings, instance)
    assert isinstance(first, SensorResult)
    second = tick(settings, instance, first.cursor)
    assert found(first) + found(second) == [f"other--model-{number:02}" for number in range(total)]


@pytest.mark.parametrize(
    ("files", "licence", "reason"),
    [
        (GGUF, "cc-by-nc-4.0", "DYNO_ALLOWED_LICENCES"),
        (GGUF, None, "DYNO_ALLOWED_LICENCES"),
        ({"README.md": b"soon"}, "mit", "neither safetensors nor GGUF"),
        ({"config.json": b"{}", "model.safetensors": b"x"}, "mit", "architectures"),
        ({"model-q8_0.gguf": b"not a GGUF file at all"}, "mit", "GGUF"),
    ],
    ids=["licence", "no licence", "no weights", "no architecture", "no GGUF"],
)
def test_what_may_not_or_cannot_run_is_refused_with_a_reason(  # noqa: PLR0917
    settings: Settings, hub: HubStandin, instance: DagsterInstance, files: dict[str, bytes], licence: str | None, reason: str
) -> None:
    """It gets no partition and no run, does not stop the others, and is not asked about again."""
    hub.publish("acme/bad", files, licence=licence, last_modified=datetime(2026, 10, 1, tzinfo=UTC))
    refused = tick(settings, instance)
    assert isinstance(refused, SensorResult)
    assert found(refused) == []
    assert partitions(refused) == {}
    assert refused.skip_reason is not None
    assert reason in str(refused.skip_reason.skip_message)
    hub.publish("acme/good", GGUF)
    assert found(tick(settings, instance, refused.cursor)) == ["acme--good"]


def test_a_hub_out_of_reach_costs_nothing(settings: Settings, hub: HubStandin, instance: DagsterInstance) -> None:
    """The tick is skipped with a reason, and what was published meanwhile is found afterwards."""
    hub.publish("acme/model", GGUF)
    with hub.failing(503):
        skipped = tick(settings, instance)
    assert isinstance(skipped, SkipReason)
    assert "out of reach" in str(skipped.skip_message)
    assert found(tick(settings, instance)) == ["acme--model"]


def test_nothing_followed_asks_nobody(hub: HubStandin, instance: DagsterInstance, tmp_path: Path) -> None:
    """Without authors and tags the hub gets no request."""
    skipped = tick(Settings(state_dir=tmp_path, hub_endpoint=hub.endpoint), instance)
    assert isinstance(skipped, SkipReason)
    assert "DYNO_FOLLOWED_AUTHORS" in str(skipped.skip_message)
    assert hub.requests == []


def test_a_ranking_that_failed_is_asked_for_again_but_not_for_ever(catalog: Catalog) -> None:
    """The results that it did not rank are still not ranked; an error that stays must not start a run every half minute."""

    def ranked(cursor: str | None) -> SensorResult | SkipReason:
        with build_sensor_context(instance=own, cursor=cursor, resources={"catalog": catalog}) as context:
            result = new_results(context)
        assert isinstance(result, SensorResult | SkipReason)
        return result

    with DagsterInstance.ephemeral() as own:
        assert isinstance(ranked("0"), SkipReason)
        keys: list[str | None] = []
        for _ in range(RANKING_ATTEMPTS - 1):
            create_run_for_test(own, job_name=rankings.name, status=DagsterRunStatus.FAILURE)
            result = ranked("0")
            assert isinstance(result, SensorResult)
            keys += [request.run_key for request in result.run_requests or ()]
        assert len(set(keys)) == RANKING_ATTEMPTS - 1
        create_run_for_test(own, job_name=rankings.name, status=DagsterRunStatus.FAILURE)
        assert isinstance(ranked("0"), SkipReason)
        create_run_for_test(own, job_name=rankings.name, status=DagsterRunStatus.SUCCESS)
        assert isinstance(ranked("0"), SkipReason)


def test_runs_that_a_killed_dyno_left_in_progress_do_not_hold_up_others() -> None:
    """They are failed with a reason; what waits, and what has ended, is left alone."""
    with DagsterInstance.ephemeral() as own:
        statuses = (DagsterRunStatus.STARTED, DagsterRunStatus.STARTING, DagsterRunStatus.NOT_STARTED, DagsterRunStatus.SUCCESS)
        runs = [create_run_for_test(own, job_name=rankings.name, status=status) for status in statuses]
        assert set(fail_stale_runs(own)) == {runs[0].run_id, runs[1].run_id}
        now = [own.get_run_by_id(run.run_id) for run in runs]
        assert [run.status for run in now if run is not None] == [
            DagsterRunStatus.FAILURE, DagsterRunStatus.FAILURE, DagsterRunStatus.NOT_STARTED, DagsterRunStatus.SUCCESS,
        ]  # fmt: skip
        assert fail_stale_runs(own) == []
