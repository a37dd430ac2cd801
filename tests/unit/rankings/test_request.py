"""A request that cannot be answered says which field is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from assets.rankings.errors import InvalidRequestError
from assets.rankings.request import Constraints, Load, RecommendRequest, Sla


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Sla(ttft_p90_ms=-1), "sla.ttft_p90_ms"),
        (lambda: Sla(latency_p90_ms=float("nan")), "sla.latency_p90_ms"),
        (lambda: Sla(min_accuracy=1.5), "sla.min_accuracy"),
        (lambda: Load(rps=0), "load.rps"),
        (lambda: Load(input_tokens=-3), "load.input_tokens"),
        (lambda: Constraints(gpus=()), "constraints.gpus"),
        (lambda: Constraints(max_gpus=-1), "constraints.max_gpus"),
        (lambda: Constraints(max_cost_per_hour_usd=float("inf")), "constraints.max_cost_per_hour_usd"),
        (lambda: Constraints(capacity="reserved"), "constraints.capacity"),  # type: ignore[arg-type]
        (lambda: RecommendRequest(""), "use_case"),
        (lambda: RecommendRequest("chatbot", weights={"latency": 0}), "weights"),
        (lambda: RecommendRequest("chatbot", method="ahp"), "method"),  # type: ignore[arg-type]
        (lambda: RecommendRequest("chatbot", kinds=("simulated",)), "kinds"),  # type: ignore[arg-type]
        (lambda: RecommendRequest("chatbot", kinds=()), "kinds"),
        (lambda: RecommendRequest("chatbot", top=0), "top"),
    ],
)
def test_the_offending_field_is_named(make: Callable[[], Any], field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        make()
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")
