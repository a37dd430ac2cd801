"""`./dyno recommend`: options into a request, problems into words, answers onto the terminal."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from rich.console import Console

from api.schemas import response as schema
from orchestration import recommendations
from orchestration.commands.recommend import RecommendError, explain, lay_over, parse_weights, recommend
from orchestration.recommendations import render_recommendation


def shown(document: dict[str, Any]) -> str:
    stream = io.StringIO()
    Console(file=stream, width=250).print(render_recommendation(document))
    return stream.getvalue()


def entry(**changes: Any) -> dict[str, Any]:
    """A recommendation with nothing known that may be unknown."""
    unknown = schema.Percentiles(p50=None, p90=None, p99=None)
    prices = schema.Prices(on_demand=None, spot=None)
    made = schema.Recommendation(
        rank=1,
        label="m[1] (cpu)",
        score=1.0,
        score_interval=None,
        model=schema.ModelName(id="m", name="m[1]", hub_id=None, licence=None, params=1),
        version="v",
        quantization="q8_0",
        framework=schema.Version(name="llama.cpp", version="1"),
        hardware=schema.Hardware(id="cpu", gpu="cpu", count=0),
        replicas=2,
        gpus=0,
        operating_point=schema.OperatingPoint(
            workload="chat", input_tokens=1, output_tokens=1, load_mode="open", concurrency=None, request_rate_per_s=2.5,
            rps_per_replica=2.4, ttft_ms=unknown, tpot_ms=unknown, latency_ms=unknown, output_tokens_per_s=2.4, accuracy=None,
        ),
        cost=schema.Cost(capacity=None, per_hour_usd=prices, per_million_output_tokens_usd=prices, source=None),
        vram=schema.Vram(required_bytes=1 << 30, available_bytes=2 << 30, parts={}),
        sla_headroom=[],
        binding_bound=None,
        pareto=True,
        criteria={},
        evidence=[
            schema.Evidence(
                id=UUID(int=1), kind="published", protocol="standard", source="paper", tool="t 1",
                measured_at=datetime(2026, 1, 1, tzinfo=UTC), requests=10, requests_failed=1, interval={}, quality_flags=[],
            )
        ],
    )  # fmt: skip
    return made.model_dump(mode="json") | changes


def answer(recommendations: list[Any], relaxations: list[Any], **metadata: Any) -> dict[str, Any]:
    told = schema.Metadata(
        catalog_version=3, candidates_considered=1, feasible=1, filtered_out={}, workload="chat", input_tokens=512, output_tokens=256,
        length_distance=0.0, warning=None, rps=1.0, sla={}, weights={}, cache="miss", elapsed_ms=1.0,
    )  # fmt: skip
    document: dict[str, Any] = {"recommendations": recommendations, "relaxations": relaxations}
    return document | {"metadata": told.model_dump() | metadata}


def test_what_is_not_known_is_said_to_be_so() -> None:
    """No price, no accuracy, no percentile, no GPU: words, not None; names with brackets are no markup."""
    text = shown(answer([entry()], []))
    for words in (
        "m[1] (cpu)",
        "the price is not known",
        "not known",
        "2 replicas of a CPU host, no GPU",
        "2.5 requests/s offered",
        "1 failed",
    ):
        assert words in text
    assert "None" not in text


def test_what_was_compared_is_said_and_a_warning_is_shown() -> None:
    text = shown(answer([entry()], [], workload="chat_short", input_tokens=96, output_tokens=32, warning="Too short [really]."))
    assert "Compared under chat_short: 96 tokens in, 32 out." in text
    assert "Too short [really]." in text
    assert "Compared" not in shown(answer([], [], workload=None, input_tokens=None, output_tokens=None))


def test_changes_that_only_help_together_share_a_row() -> None:
    changes = [
        {"bound": "sla.ttft_p90_ms", "asked": 10.0, "required": 12.5},
        {"bound": "constraints.gpus", "asked": ["L4"], "required": ["L4", "H100"]},
        {"bound": "sla.min_accuracy", "asked": 0.9, "required": None},
    ]
    text = shown(answer([], [{"changes": changes, "recommendation": entry()}], filtered_out={"too_many_gpus": 1}))
    for words in ("sla.ttft_p90_ms: 10 -> 12.5", "constraints.gpus: L4 -> L4, H100", "sla.min_accuracy: 0.9 -> any", "1 too many gpus"):
        assert words in text


def test_with_nothing_measured_the_command_that_measures_is_named() -> None:
    assert "./dyno demo" in shown(answer([], [], candidates_considered=0))


def test_weights_are_read() -> None:
    assert parse_weights("accuracy=0.3, cost=1") == {"accuracy": 0.3, "cost": 1.0}


@pytest.mark.parametrize("text", ["cost", "cost=", "=1", "cost=much", "cost=1,,", ""])
def test_weights_of_another_form_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(RecommendError, match="write for example accuracy"):
        parse_weights(text)


def test_options_come_on_top_of_a_file() -> None:
    document: dict[str, Any] = {"load": {"rps": 1, "input_tokens": 5}}
    lay_over(document, {"load.rps": 2.0, "load.input_tokens": None, "sla.ttft_p90_ms": 3.0, "top": 4, "method": None})
    assert document == {"load": {"rps": 2.0, "input_tokens": 5}, "sla": {"ttft_p90_ms": 3.0}, "top": 4}
    with pytest.raises(RecommendError, match="leave out --rps"):
        lay_over({"load": []}, {"load.rps": 1.0})


@pytest.mark.parametrize("content", [None, b"{", b"[]", b"\xff"])
def test_a_file_that_is_no_request_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    """Missing, not JSON, no object, not text: each says what to give instead."""
    file = tmp_path / "request.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(RecommendError, match=r"--request: .*(cannot be read|is not JSON|no JSON object)"):
        recommend(request=str(file))


def test_a_problem_names_options_where_it_can() -> None:
    problem = {
        "errors": [
            {"location": "body.sla.ttft_p90_ms", "detail": "a", "fix": "b"},
            {"location": "body.weights.cost", "detail": "c", "fix": "d"},
            {"location": "body.weights", "detail": "e", "fix": "f"},
            {"location": "body.kinds.0", "detail": "g", "fix": "h"},
        ]
    }
    assert explain(problem).splitlines() == ["--ttft-p90-ms: a; b", "--weights cost: c; d", "--weights: e; f", "kinds.0: g; h"]
    assert explain({"detail": "the database does not answer", "errors": []}) == "the database does not answer"


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [
        (999.6, 3, "1,000"),
        (9999.97, 4, "10,000"),
        (0.00001, 4, "0.00001"),
        (0.1222, 3, "0.122"),
        (16.74, 3, "16.7"),
        (0.0, 3, "0"),
        (27.5, 4, "27.5"),
    ],
)
def test_numbers_have_no_exponent(value: float, digits: int, shown: str) -> None:
    assert recommendations._number(value, digits) == shown


@pytest.mark.parametrize(
    ("bound", "required", "shown"),
    [
        ("sla.ttft_p90_ms", 412.51239, "412.513"),
        ("sla.min_accuracy", 0.71234567, "0.712345"),
        ("constraints.max_cost_per_hour_usd", 1234567.0, "1234567"),
        ("constraints.max_gpus", 8, "8"),
    ],
)
def test_a_bound_that_is_advised_can_be_followed(bound: str, required: float, shown: str) -> None:
    """Rounded to the side on which it still holds."""
    assert recommendations._required({"bound": bound, "required": required}) == shown
