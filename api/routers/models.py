"""Registered models and use cases."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Path

from api.deps import Limit, Offset, ServicesDep, Text
from api.errors import ModelNotFoundError
from api.routers.problems import problems
from api.schemas.catalog import Model, ModelDetail, ModelPage, UseCase, UseCases

router = APIRouter(prefix="/api/v1", tags=["catalog"])


@router.get("/models", responses=problems(422, 503))
def models(
    services: ServicesDep,
    *,
    author: Text | None = None,
    licence: Text | None = None,
    search: Text | None = None,
    limit: Limit = 50,
    offset: Offset = 0,
) -> ModelPage:
    """The registered models by id: `author` is the part of the hub id before the slash; `search` looks into ids and names."""
    found, total = services.repository.models(author, licence, search, limit, offset)
    return ModelPage(items=[Model(**_counted(model)) for model in found], total=total, limit=limit, offset=offset)


@router.get("/models/{model_id:path}", responses=problems(404, 503))
def model(services: ServicesDep, model_id: str = Path(description="Id (`llama-3.1-8b`) or hub id (`org/name`).")) -> ModelDetail:
    """One model with its versions, the facts of its architecture and how it does in each use case."""
    found = None if "\x00" in model_id else services.repository.model(model_id)
    if found is None:
        raise ModelNotFoundError(model_id)
    return ModelDetail(**_counted(found))


@router.get("/use-cases", responses=problems(503))
def use_cases(services: ServicesDep) -> UseCases:
    """The use cases, each with the workloads that stand for it, its default load and its bounds with their source."""
    return UseCases(items=[UseCase(**row) for row in services.repository.use_cases()])


def _counted(model: dict[str, Any]) -> dict[str, Any]:
    counts = [version["results"] for version in model["versions"]]
    measured = any(count.get("measured", 0) for count in counts)
    return {**model, "measured": measured, "results": sum(sum(count.values()) for count in counts)}
