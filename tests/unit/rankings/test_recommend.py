"""The recommendation: the seeds' example, filters that add up, replicas and cost, the ranking, and what would have to give."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from assets.rankings.errors import InvalidRequestError
from assets.rankings.recommend import recommend, terms_of
from assets.rankings.relaxations import changed
from assets.rankings.request import Constraints, Load, RecommendRequest, Sla
from assets.rankings.rows import LoadPointRow
from assets.rankings.workloads import MeasuredWorkload
from tests.unit.rankings.rows import CHATBOT, load_point

SHORT_BY_4_H100 = load_point(config_id="qwen", e2e_p90_ms=280.0, requests_per_s=12.0, output_tokens_per_s=3072.0)


def only(**changes: Any) -> list[LoadPointRow]:
    return [load_point(config_id="good", requests_per_s=10.0), load_point(config_id="bad", **changes)]


def test_the_seeds_example() -> None:
    """Chatbot, 30 requests per second of 512 tokens, p90 latency within 300 ms: Qwen2.5-7B on 4 H100, three times."""
    rows = [
        SHORT_BY_4_H100,
        replace(SHORT_BY_4_H100, config_id="more load", requests_per_s=20.0, e2e_p90_ms=301.0),
        load_point(config_id="slow", e2e_p90_ms=900.0, requests_per_s=40.0),
    ]
    request = RecommendRequest("chatbot", Load(rps=30, input_tokens=512), Sla(latency_p90_ms=300))
    response = recommend(request, CHATBOT, rows)
    (best,) = response.recommendations
    assert (best.operating_point.model_name, best.operating_point.gpu_count, best.operating_point.gpu_type) == ("Qwen2.5-7B", 4, "H100")
    assert (best.rank, best.score, best.replicas, best.gpus, best.pareto) == (1, 1.0, 3, 12, True)
    assert best.cost.per_hour_usd == pytest.approx(60.0)
    assert best.cost.spot_per_hour_usd == pytest.approx(24.0)
    assert best.cost.per_million_output_tokens_usd == pytest.approx(20 / (3072 * 3600) * 1e6)
    assert best.binding_bound == "latency_p90_ms"
    assert best.sla_headroom[0].share == pytest.approx(20 / 300)
    assert response.filtered_out == {"latency_p90_ms_above_limit": 1}
    assert (response.considered, response.feasible) == (2, 1)
    assert response.relaxations == ()


def test_an_asked_load_is_priced_as_what_serves_it() -> None:
    """Half a request per second: a small deployment carries it for 1.10 USD/h, a big one costs 10 USD/h, cheaper a token as that is."""
    small = load_point(config_id="small", deployment_id="small", requests_per_s=1.0, output_tokens_per_s=100.0, on_demand_usd_per_hour=1.10)
    big = load_point(config_id="big", deployment_id="big", requests_per_s=10.0, output_tokens_per_s=1000.0, on_demand_usd_per_hour=10.0)

    def first(rps: float | None) -> str:
        request = RecommendRequest("chatbot", Load(rps=rps), weights={"cost": 1.0}, constraints=Constraints(capacity="on_demand"))
        return recommend(request, CHATBOT, [small, big]).recommendations[0].operating_point.config_id

    assert (first(0.5), first(10.0), first(None)) == ("small", "big", "big")


def test_a_small_load_is_not_run_at_the_limit() -> None:
    """One replica carries 2 requests per second at either load point: the quicker is taken; for 30, the one that needs fewer replicas."""
    quick = load_point(config_id="quick", deployment_id="d", concurrency=2, requests_per_s=4.0, e2e_p90_ms=100.0)
    busy = load_point(config_id="busy", deployment_id="d", concurrency=32, requests_per_s=20.0, e2e_p90_ms=900.0)

    def chosen(rps: float | None) -> str:
        return recommend(RecommendRequest("chatbot", Load(rps=rps)), CHATBOT, [quick, busy]).recommendations[0].operating_point.config_id

    assert (chosen(2.0), chosen(30.0), chosen(None)) == ("quick", "busy", "busy")


def test_an_unknown_price_comes_last_among_equals() -> None:
    priced = load_point(config_id="priced", deployment_id="priced", on_demand_usd_per_hour=5.0)
    unpriced = load_point(config_id="a", deployment_id="a", on_demand_usd_per_hour=None, spot_usd_per_hour=None)
    response = recommend(RecommendRequest("chatbot", weights={"latency": 1.0}), CHATBOT, [unpriced, priced])
    assert [r.operating_point.config_id for r in response.recommendations] == ["priced", "a"]


def test_what_pareto_keeps_is_on_the_front() -> None:
    """An accuracy that only a beaten candidate lacks must not come back after that one is gone, and take another from the front."""
    rows = [
        load_point(config_id="c1", deployment_id="c1", accuracy=0.5, e2e_p90_ms=100.0),
        load_point(config_id="c2", deployment_id="c2", accuracy=0.9, e2e_p90_ms=100.0),
        load_point(config_id="c3", deployment_id="c3", accuracy=None, e2e_p90_ms=500.0),
    ]
    response = recommend(RecommendRequest("chatbot", method="pareto"), CHATBOT, rows)
    assert all(r.pareto for r in response.recommendations)


def test_defaults_of_the_use_case_are_in_force_unless_others_are_given() -> None:
    response = recommend(RecommendRequest("chatbot"), CHATBOT, [])
    assert response.sla == {"ttft_p90_ms": 2000.0, "tpot_p90_ms": 200.0}
    assert response.rps == 2.0
    asked = recommend(RecommendRequest("chatbot", Load(rps=7), Sla(ttft_p99_ms=5)), CHATBOT, [])
    assert asked.sla == {"ttft_p99_ms": 5.0}
    assert asked.rps == 7


def test_a_use_case_that_was_not_asked_for_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="use_case"):
        recommend(RecommendRequest("rag"), CHATBOT, [])


@pytest.mark.parametrize(
    ("row", "request_changes", "reason"),
    [
        ({"kind": "published"}, {"kinds": ("measured",)}, "kind_not_asked_for"),
        ({"workload": "chat_short", "input_tokens": 96, "output_tokens": 32}, {}, "other_workload"),
        ({"output_tokens": 128}, {"load": Load(output_tokens=250)}, "other_workload"),
        ({"workload": "chat_short"}, {}, "other_workload"),
        (
            {"model_id": "x", "hub_id": None, "model_name": "X"},
            {"constraints": Constraints(models=("qwen/qwen2.5-7b",))},
            "model_not_allowed",
        ),
        ({"licence": None}, {"constraints": Constraints(licences=("Apache-2.0",))}, "licence_not_allowed"),
        ({"framework": "tgi"}, {"constraints": Constraints(frameworks=("vLLM",))}, "framework_not_allowed"),
        ({"quantization": "int4"}, {"constraints": Constraints(quantizations=("fp16",))}, "quantization_not_allowed"),
        ({"gpu_type": "L4", "hardware_id": "l4-x4"}, {"constraints": Constraints(gpus=("H100",))}, "gpu_not_allowed"),
        ({"spot_usd_per_hour": None}, {"constraints": Constraints(capacity="spot")}, "no_spot_price"),
        ({"accuracy": None}, {"sla": Sla(min_accuracy=0.5)}, "accuracy_unknown"),
        ({"accuracy": 0.4}, {"sla": Sla(min_accuracy=0.5)}, "accuracy_below_minimum"),
        ({"ttft_p90_ms": None}, {"sla": Sla(ttft_p90_ms=100)}, "ttft_p90_ms_unknown"),
        ({"ttft_p90_ms": 101.0}, {"sla": Sla(ttft_p90_ms=100)}, "ttft_p90_ms_above_limit"),
        ({"requests_per_s": 1.0}, {"load": Load(rps=10), "constraints": Constraints(max_gpus=39)}, "too_many_gpus"),
        ({"on_demand_usd_per_hour": None}, {"constraints": Constraints(max_cost_per_hour_usd=1000)}, "price_unknown"),
        ({"on_demand_usd_per_hour": 21.0}, {"constraints": Constraints(max_cost_per_hour_usd=20)}, "cost_above_maximum"),
    ],
)
def test_each_filter_drops_what_it_should_and_counts_it(row: dict[str, Any], request_changes: dict[str, Any], reason: str) -> None:
    request = replace(RecommendRequest("chatbot", Load(rps=1)), **request_changes)
    response = recommend(request, CHATBOT, only(**row))
    assert [r.operating_point.config_id for r in response.recommendations] == ["good"]
    assert response.filtered_out == {reason: 1}
    assert response.considered == 2


def test_bounds_that_only_different_load_points_meet_are_named_as_such() -> None:
    rows = [
        load_point(config_id="a", deployment_id="d", ttft_p90_ms=10.0, tpot_p90_ms=90.0),
        load_point(config_id="b", deployment_id="d", ttft_p90_ms=90.0, tpot_p90_ms=10.0),
    ]
    response = recommend(RecommendRequest("chatbot", sla=Sla(ttft_p90_ms=50, tpot_p90_ms=50)), CHATBOT, rows)
    assert response.filtered_out == {"no_load_point_meets_all_bounds": 1}


def test_workloads_of_other_use_cases_are_not_considered_at_all() -> None:
    response = recommend(RecommendRequest("chatbot"), CHATBOT, [load_point(workload="rag")])
    assert (response.considered, response.compared) == (0, None)


@pytest.mark.parametrize(
    ("load", "winner"),
    [
        (Load(), "long"),
        (Load(input_tokens=96, output_tokens=32), "short"),
        # the lengths that are not asked for are the use case's: 512 in, 256 out
        (Load(input_tokens=90), "long"),
        (Load(output_tokens=32), "short"),
        # ratios count, not differences: the geometric mean of both lies between these two
        (Load(input_tokens=225, output_tokens=91), "long"),
        (Load(input_tokens=219, output_tokens=90), "short"),
    ],
)
def test_a_short_answer_is_not_ranked_against_a_long_one(load: Load, winner: str) -> None:
    """The short workload is faster, cheaper and has more throughput; it counts only where its lengths are closest to those wanted."""
    long = load_point(config_id="long")
    short = load_point(
        config_id="short", workload="chat_short", input_tokens=96, output_tokens=32, e2e_p90_ms=200.0, requests_per_s=30.0,
        output_tokens_per_s=960.0,
    )  # fmt: skip
    response = recommend(RecommendRequest("chatbot", load), CHATBOT, [long, short])
    assert [r.operating_point.config_id for r in response.recommendations] == [winner]
    assert response.filtered_out == {"other_workload": 1}
    expected = {"long": ("chat", 512, 256), "short": ("chat_short", 96, 32)}[winner]
    assert response.compared is not None
    assert (response.compared.workload, response.compared.input_tokens, response.compared.output_tokens) == expected


def test_only_allowed_deployments_decide_which_workload_is_compared() -> None:
    """Asked for a CPU that was measured under the short workload only, the answer is about that one, and says how far off it is."""
    cpu = {"gpu_type": "cpu", "hardware_id": "cpu", "gpu_count": 0, "workload": "chat_short", "input_tokens": 96, "output_tokens": 32}
    rows = [load_point(config_id="h100"), load_point(config_id="cpu", **cpu)]
    response = recommend(RecommendRequest("chatbot", Load(input_tokens=100), constraints=Constraints(gpus=("cpu",))), CHATBOT, rows)
    assert [r.operating_point.config_id for r in response.recommendations] == ["cpu"]
    assert response.filtered_out == {"gpu_not_allowed": 1}
    assert response.compared is not None
    assert response.compared.distance == pytest.approx(math.log(100 / 96) + math.log(256 / 32))
    assert response.compared.warning == (
        "The closest lengths that were measured are more than a factor of 2 off: answers of 32 tokens were measured, "
        "256 are typical of the use case. Latency, throughput and cost would differ."
    )


@pytest.mark.parametrize(
    ("load", "words"),
    [
        (Load(input_tokens=1024, output_tokens=128), None),
        (Load(input_tokens=1025), "prompts of 512 tokens were measured, 1025 were asked for. "),
        (Load(output_tokens=127), "answers of 256 tokens were measured, 127 were asked for. "),
        (Load(input_tokens=10, output_tokens=9999), "prompts of 512 tokens were measured, 10 were asked for; answers of 256 tokens"),
    ],
)
def test_lengths_beyond_a_factor_of_two_are_said_in_words(load: Load, words: str | None) -> None:
    compared = recommend(RecommendRequest("chatbot", load), CHATBOT, [load_point()]).compared
    assert compared is not None
    assert (compared.warning is None) if words is None else (compared.warning is not None and words in compared.warning)


def test_any_capacity_takes_the_cheaper_known_price() -> None:
    rows = [
        load_point(config_id="both"),
        load_point(config_id="on demand", spot_usd_per_hour=None),
        load_point(config_id="none", on_demand_usd_per_hour=None, spot_usd_per_hour=None),
    ]
    response = recommend(RecommendRequest("chatbot", constraints=Constraints(capacity="any")), CHATBOT, rows)
    paid = {r.operating_point.config_id: (r.cost.capacity, r.cost.per_hour_usd) for r in response.recommendations}
    assert paid == {"both": ("spot", 8.0), "on demand": ("on_demand", 20.0), "none": (None, None)}


def test_a_criterion_that_is_unknown_for_one_does_not_count_and_the_weights_say_so() -> None:
    response = recommend(RecommendRequest("chatbot"), CHATBOT, only(accuracy=None))
    assert "accuracy" not in response.weights
    assert response.weights["latency"] == pytest.approx(0.25 / 0.7)


def test_pareto_keeps_only_what_nothing_beats() -> None:
    rows = [
        load_point(config_id="fast", e2e_p90_ms=100.0, on_demand_usd_per_hour=40.0),
        load_point(config_id="cheap", e2e_p90_ms=900.0, on_demand_usd_per_hour=10.0),
        load_point(config_id="beaten", e2e_p90_ms=900.0, on_demand_usd_per_hour=11.0),
    ]
    topsis = recommend(RecommendRequest("chatbot"), CHATBOT, rows)
    assert {r.operating_point.config_id: r.pareto for r in topsis.recommendations} == {"fast": True, "cheap": True, "beaten": False}
    front = recommend(RecommendRequest("chatbot", method="pareto"), CHATBOT, rows)
    assert {r.operating_point.config_id for r in front.recommendations} == {"fast", "cheap"}
    assert front.filtered_out == {"dominated": 1}
    assert front.considered == front.feasible + 1


def test_the_score_interval_comes_from_the_latency_interval() -> None:
    rows = [
        load_point(config_id="a", e2e_p90_ms=500.0, intervals={"e2e_p90_ms": [400.0, 700.0]}),
        load_point(config_id="b", e2e_p90_ms=600.0),
    ]
    scores = {r.operating_point.config_id: r for r in recommend(RecommendRequest("chatbot"), CHATBOT, rows).recommendations}
    interval = scores["a"].score_interval
    assert interval is not None
    assert interval[0] < scores["a"].score <= interval[1]
    assert scores["b"].score_interval is None


def test_top_limits_what_comes_back_not_what_is_compared() -> None:
    rows = [load_point(config_id=f"c{i}", e2e_p90_ms=100.0 + i) for i in range(5)]
    response = recommend(RecommendRequest("chatbot", top=2), CHATBOT, rows)
    assert [r.rank for r in response.recommendations] == [1, 2]
    assert response.feasible == 5


def test_the_smallest_relaxation_of_each_bound() -> None:
    """A bound that is the only obstacle is relaxed to exactly what was measured; one that is not an obstacle is left alone."""
    rows = [
        load_point(config_id="l4", gpu_type="L4", gpu_count=1, requests_per_s=2.0, ttft_p90_ms=300.0, on_demand_usd_per_hour=1.0),
        load_point(config_id="h100", requests_per_s=5.0, ttft_p90_ms=90.0, on_demand_usd_per_hour=20.0),
    ]
    request = RecommendRequest("chatbot", Load(rps=10), Sla(ttft_p90_ms=100), Constraints(max_cost_per_hour_usd=30))
    response = recommend(request, CHATBOT, rows)
    assert response.filtered_out == {"cost_above_maximum": 1, "ttft_p90_ms_above_limit": 1}
    changes = {r.changes[0].bound: (r.changes[0].asked, r.changes[0].required) for r in response.relaxations}
    assert changes == {
        "sla.ttft_p90_ms": (100.0, 300.0),
        "constraints.max_cost_per_hour_usd": (30, 40.0),
        "load.rps": (10, 5.0),
        "constraints.capacity": ("on_demand", "any"),
    }
    served_by = {r.changes[0].bound: r.recommendation.operating_point.config_id for r in response.relaxations}
    assert served_by["sla.ttft_p90_ms"] == "l4"


def test_names_kinds_and_capacity_can_be_relaxed() -> None:
    row = load_point(spot_usd_per_hour=None, kind="published")
    for request, bound, required in (
        (RecommendRequest("chatbot", constraints=Constraints(gpus=("L4",))), "constraints.gpus", ("L4", "H100")),
        (RecommendRequest("chatbot", constraints=Constraints(capacity="spot")), "constraints.capacity", "any"),
        (RecommendRequest("chatbot", kinds=("measured",)), "kinds", ("measured", "published")),
    ):
        (relaxation,) = recommend(request, CHATBOT, [row]).relaxations
        assert [(c.bound, c.required) for c in relaxation.changes] == [(bound, required)]


def test_lengths_are_relaxed_to_the_nearest_measured_ones_that_do() -> None:
    """Nothing under the compared workload is fast enough; of the others the one with the nearest lengths that is."""
    rows = [
        load_point(config_id="long", e2e_p90_ms=900.0),
        load_point(config_id="half", output_tokens=128, e2e_p90_ms=400.0),
        load_point(config_id="short", workload="chat_short", input_tokens=96, output_tokens=32, e2e_p90_ms=200.0),
    ]
    changes = {}
    for limit in (500, 300):
        response = recommend(RecommendRequest("chatbot", sla=Sla(latency_p90_ms=limit)), CHATBOT, rows)
        assert response.filtered_out == {"latency_p90_ms_above_limit": 1, "other_workload": 2}
        changes[limit] = [[(c.bound, c.asked, c.required) for c in r.changes] for r in response.relaxations]
    bound = ("sla.latency_p90_ms", 900.0)
    assert changes[500] == [[(bound[0], 500.0, bound[1])], [("load.output_tokens", 256, 128)]]
    assert changes[300] == [[(bound[0], 300.0, bound[1])], [("load.input_tokens", 512, 96), ("load.output_tokens", 256, 32)]]


def test_where_no_single_change_is_enough_the_smallest_set_is_given() -> None:
    rows = [
        load_point(config_id="near", ttft_p90_ms=110.0, tpot_p90_ms=12.0, deployment_id="d"),
        load_point(config_id="far", ttft_p90_ms=900.0, tpot_p90_ms=90.0, deployment_id="d"),
    ]
    response = recommend(RecommendRequest("chatbot", sla=Sla(ttft_p90_ms=100, tpot_p90_ms=11)), CHATBOT, rows)
    (relaxation,) = response.relaxations
    assert [(c.bound, c.required) for c in relaxation.changes] == [("sla.ttft_p90_ms", 110.0), ("sla.tpot_p90_ms", 12.0)]
    assert relaxation.recommendation.operating_point.config_id == "near"


def test_an_empty_catalog_has_nothing_to_relax() -> None:
    response = recommend(RecommendRequest("chatbot"), CHATBOT, [])
    assert (response.considered, response.recommendations, response.relaxations) == (0, (), ())


@st.composite
def catalogs(draw: st.DrawFn) -> list[LoadPointRow]:
    """Load points of a few deployments, of which some values are unknown."""
    latency = st.floats(1, 5000) | st.none()
    price = st.floats(0.1, 100) | st.none()
    rows = []
    for deployment in range(draw(st.integers(1, 4))):
        shared = {
            "deployment_id": f"d{deployment}",
            "gpu_type": draw(st.sampled_from(["L4", "H100", "cpu"])),
            "quantization": draw(st.sampled_from(["fp16", "int4"])),
            "licence": draw(st.sampled_from(["mit", None])),
            "kind": draw(st.sampled_from(["measured", "published"])),
            "input_tokens": draw(st.sampled_from([96, 512, 4096])),
            "gpu_count": draw(st.sampled_from([0, 1, 4])),
            "accuracy": draw(st.floats(0, 1) | st.none()),
            "on_demand_usd_per_hour": draw(price),
            "spot_usd_per_hour": draw(price),
        }
        for point in range(draw(st.integers(1, 3))):
            rates = {"requests_per_s": draw(st.floats(0.1, 50)), "ttft_p90_ms": draw(latency), "e2e_p90_ms": draw(latency)}
            rows.append(load_point(config_id=f"c{deployment}-{point}", **shared, **rates))
    return rows


requests = st.builds(
    RecommendRequest,
    use_case=st.just("chatbot"),
    load=st.builds(Load, rps=st.floats(0.1, 200), input_tokens=st.none() | st.sampled_from([100, 600])),
    sla=st.none()
    | st.builds(
        Sla,
        ttft_p90_ms=st.none() | st.floats(1, 5000),
        latency_p90_ms=st.none() | st.floats(1, 5000),
        min_accuracy=st.none() | st.floats(0.01, 1),
    ),
    constraints=st.builds(
        Constraints,
        gpus=st.none() | st.just(("H100",)),
        licences=st.none() | st.just(("mit",)),
        quantizations=st.none() | st.just(("fp16",)),
        max_gpus=st.none() | st.integers(0, 16),
        max_cost_per_hour_usd=st.none() | st.floats(0.1, 200),
        capacity=st.sampled_from(["on_demand", "spot", "any"]),
    ),
    method=st.sampled_from(["topsis", "pareto"]),
    kinds=st.sampled_from([("measured",), ("measured", "published")]),
)


@settings(max_examples=100)
@given(catalogs(), requests)
def test_every_candidate_is_counted_once_and_every_recommendation_keeps_the_request(
    rows: list[LoadPointRow], request: RecommendRequest
) -> None:
    response = recommend(request, CHATBOT, rows)
    assert response.considered == len({r.deployment_id for r in rows}) == response.feasible + sum(response.filtered_out.values())
    assert len(response.recommendations) == min(response.feasible, request.top)
    limits = request.constraints
    for found in response.recommendations:
        assert found.replicas * found.operating_point.requests_per_s >= response.rps * (1 - 1e-8)
        assert limits.max_gpus is None or found.gpus <= limits.max_gpus
        assert limits.max_cost_per_hour_usd is None or (found.cost.per_hour_usd or 0) <= limits.max_cost_per_hour_usd
        assert all(h.share >= 0 for h in found.sla_headroom)
        assert response.compared is not None
        assert MeasuredWorkload.of(found.operating_point) == MeasuredWorkload(
            response.compared.workload, response.compared.input_tokens, response.compared.output_tokens
        )
        assert len(found.sla_headroom) == len(response.sla)


@settings(max_examples=100)
@given(catalogs(), requests)
def test_relaxations_truly_make_something_feasible(rows: list[LoadPointRow], request: RecommendRequest) -> None:
    """Asked again with the changes made, the request is feasible; single changes are smallest: a hair less is not enough."""
    response = recommend(request, CHATBOT, rows)
    assume(not response.recommendations)
    for relaxation in response.relaxations:
        relaxed = changed(terms_of(request, CHATBOT), relaxation.changes).request
        again = recommend(relaxed, CHATBOT, rows)
        assert again.recommendations[0] == relaxation.recommendation
        (first, *others) = relaxation.changes
        if others or not isinstance(first.required, float) or not isinstance(first.asked, float | int) or first.bound == "load.rps":
            continue
        nearer = first.required + (first.asked - first.required) * 1e-6
        closer = changed(terms_of(request, CHATBOT), [replace(first, required=nearer)]).request
        assert not recommend(closer, CHATBOT, rows).recommendations
