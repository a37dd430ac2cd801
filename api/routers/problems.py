"""How a route says in the OpenAPI document which problems it may answer with."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from api.schemas.problem import Problem


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route for these statuses."""
    return {status: {"model": Problem, "description": HTTPStatus(status).phrase} for status in statuses}
