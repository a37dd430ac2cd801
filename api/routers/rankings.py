"""Rankings by use case, as the marts have them."""

from __future__ import annotations

from fastapi import APIRouter

from api.deps import Limit, Offset, ServicesDep, Text
from api.errors import UnknownUseCaseError
from api.routers.problems import problems
from api.schemas.catalog import Ranking, RankingPage

router = APIRouter(prefix="/api/v1", tags=["catalog"])


@router.get("/rankings", responses=problems(422, 503))
def rankings(
    services: ServicesDep,
    *,
    use_case: Text,
    model_id: Text | None = None,
    quantization: Text | None = None,
    framework: Text | None = None,
    gpu_type: Text | None = None,
    hardware_id: Text | None = None,
    limit: Limit = 50,
    offset: Offset = 0,
) -> RankingPage:
    """Deployments at their best load point within the use case's own bounds, best first. Filters do not change scores or ranks."""
    filters = {
        "model_id": model_id,
        "quantization": quantization,
        "framework": framework,
        "gpu_type": gpu_type,
        "hardware_id": hardware_id,
    }
    version = services.repository.catalog_version()
    known = [row["use_case"] for row in services.repository.use_cases()]
    if use_case not in known:
        raise UnknownUseCaseError(use_case, known, "query.use_case")
    given = {name: value for name, value in filters.items() if value is not None}
    found, total = services.repository.rankings(use_case, given, limit, offset)
    items = [Ranking(**row) for row in found]
    return RankingPage(items=items, total=total, limit=limit, offset=offset, catalog_version=version.number)
