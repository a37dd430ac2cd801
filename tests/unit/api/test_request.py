"""The request's schema, and how its errors are explained."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from api.explain import MAX_ERRORS, explain
from api.schemas import request as schema
from api.schemas.request import EXAMPLE, EXAMPLE_CONSTRAINED, RecommendRequest
from assets.rankings import request as rankings
from assets.rankings.criteria import CRITERION_NAMES


def errors_of(document: Any) -> list[Any]:
    with pytest.raises(ValidationError) as caught:
        RecommendRequest.model_validate(document)
    return [{**error, "loc": ("body", *error["loc"])} for error in caught.value.errors()]


@pytest.mark.parametrize("example", [EXAMPLE, EXAMPLE_CONSTRAINED])
def test_the_examples_of_the_documentation_are_valid(example: dict[str, Any]) -> None:
    terms = RecommendRequest.model_validate(example).terms()
    assert terms.use_case == example["use_case"]
    assert sum(terms.normalized_weights.values()) == pytest.approx(1)


def test_the_schema_has_every_term_of_the_ranking() -> None:
    """A term that is added to the ranking cannot be forgotten here, and the other way round."""
    pairs = (
        (schema.Load, rankings.Load),
        (schema.Sla, rankings.Sla),
        (schema.Constraints, rankings.Constraints),
        (schema.RecommendRequest, rankings.RecommendRequest),
    )
    for ours, theirs in pairs:
        assert set(ours.model_fields) == {field.name for field in fields(theirs)}
    assert set(schema.Weights.model_fields) == set(CRITERION_NAMES)


def test_every_term_reaches_the_ranking() -> None:
    """Filled in everywhere, the request arrives whole."""
    document = {
        "use_case": "rag",
        "load": {"rps": 2.5, "input_tokens": 100, "output_tokens": 20},
        "sla": dict.fromkeys(schema.Sla.model_fields, 0.5),
        "constraints": {
            "gpus": ["H100"], "max_gpus": 8, "max_cost_per_hour_usd": 9.5, "frameworks": ["vllm"], "quantizations": ["fp8"],
            "models": ["m"], "licences": ["mit"], "capacity": "spot",
        },
        "weights": {"cost": 2, "latency": 1},
        "method": "pareto",
        "kinds": ["measured"],
        "top": 3,
    }  # fmt: skip
    terms = RecommendRequest.model_validate(document).terms()
    assert terms == rankings.RecommendRequest(
        "rag",
        rankings.Load(2.5, 100, 20),
        rankings.Sla(**{field.name: 0.5 for field in fields(rankings.Sla)}),
        rankings.Constraints(("H100",), 8, 9.5, ("vllm",), ("fp8",), ("m",), ("mit",), "spot"),
        {"cost": 2.0, "latency": 1.0},
        "pareto",
        ("measured",),
        3,
    )


@pytest.mark.parametrize(
    ("document", "location", "fix"),
    [
        ({"use_case": "a", "slas": {}}, "body.slas", "write 'sla', or remove it"),
        ({"use_case": "a", "weights": {"price": 1}}, "body.weights.price", "remove it; the fields here are accuracy, cost, latency"),
        ({"use_case": "a", "constraints": {"gpu": ["H100"]}}, "body.constraints.gpu", "write 'gpus', or remove it"),
        ({"use_case": "a", "load": {"rps": 0}}, "body.load.rps", "give a number above 0"),
        ({"use_case": "a", "load": {"rps": float("nan")}}, "body.load.rps", "give a finite number"),
        ({"use_case": "a", "load": {"input_tokens": 1.5}}, "body.load.input_tokens", "give a whole number"),
        ({"use_case": "a", "top": True}, "body.top", "give a whole number"),
        ({"use_case": "a", "method": "ahp"}, "body.method", "choose 'topsis' or 'pareto'"),
        ({"use_case": "a", "sla": []}, "body.sla", "send a JSON object"),
        ({"use_case": "\ud800"}, "body.use_case", "send valid Unicode text"),
    ],
)
def test_an_error_says_where_and_what_to_do(document: Any, location: str, fix: str) -> None:
    (item,) = explain(errors_of(document))
    assert item.location == location
    assert fix in item.fix


def test_a_flood_of_errors_is_cut_short() -> None:
    items = explain(errors_of({"use_case": "a", **{f"x{n}": n for n in range(500)}}))
    assert len(items) == MAX_ERRORS + 1
    assert items[-1].detail == "480 more errors"


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*RecommendRequest.model_fields, "else"]), json_values))
def test_every_refusal_can_be_explained(document: dict[str, Any]) -> None:
    """Whatever is wrong, each error has a place, a problem and a remedy without holes."""
    try:
        RecommendRequest.model_validate(document)
    except ValidationError as error:
        for item in explain([{**e, "loc": ("body", *e["loc"])} for e in error.errors()]):
            assert item.location.startswith("body")
            assert item.detail
            assert item.fix
            assert "{" not in item.fix
