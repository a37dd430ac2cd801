"""Rankings by use case, as the marts have them."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from api.deps import Length, Limit, Offset, ServicesDep, Text, only_known_parameters
from api.errors import UnknownUseCaseError
from api.repository import use_case_row
from api.routers.problems import problems
from api.schemas.catalog import Ranking, RankingPage

router = APIRouter(prefix="/api/v1", tags=["catalog"], dependencies=[Depends(only_known_parameters)])


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
    workload: Text | None = None,
    input_tokens: Length | None = None,
    output_tokens: Length | None = None,
    limit: Limit = 50,
    offset: Offset = 0,
) -> RankingPage:
    """Deployments at their best load point within the use case's own bounds, best first.

    Only those of the same workload, input tokens and output tokens are ranked against one another, so that each such ranking has its
    rank 1; the one with lengths closest to the use case's typical ones comes first. Filters do not change scores or ranks.
    """
    filters: dict[str, str | int | None] = {
        "model_id": model_id,
        "quantization": quantization,
        "framework": framework,
        "gpu_type": gpu_type,
        "hardware_id": hardware_id,
        "workload": workload,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
    }
    version = services.repository.catalog_version()
    known = {row["use_case"]: row for row in services.repository.use_cases()}
    if use_case not in known:
        raise UnknownUseCaseError(use_case, list(known), "query.use_case")
    given = {name: value for name, value in filters.items() if value is not None}
    found, total = services.repository.rankings(use_case_row(known[use_case]), given, limit, offset)
    items = [Ranking(**row) for row in found]
    return RankingPage(items=items, total=total, limit=limit, offset=offset, catalog_version=version.number)
