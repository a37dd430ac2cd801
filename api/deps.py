"""What an application is made of, and how its routes get it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Self

from fastapi import Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from api.cache import AnswerCache
from api.metrics import Metrics
from api.recommender import Recommender
from api.repository import Repository, make_engine
from api.settings import ApiSettings


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of one application. Nothing connects before it is needed."""

    metrics: Metrics
    repository: Repository
    cache: AnswerCache
    recommender: Recommender

    @classmethod
    def of(cls, settings: ApiSettings) -> Self:
        """The parts that the settings describe."""
        metrics = Metrics()
        repository = Repository(make_engine(settings), metrics)
        cache = AnswerCache(settings, metrics)
        return cls(metrics, repository, cache, Recommender(repository, cache, metrics))

    def close(self) -> None:
        """Close every connection."""
        self.cache.close()
        self.repository.close()


def services(request: Request) -> Services:
    """The parts of the application that a request came to."""
    found: Services = request.app.state.services
    return found


def only_known_parameters(request: Request) -> None:
    """A misspelt filter would be passed over, and the answer be of everything. Raises RequestValidationError."""
    route: APIRoute = request.scope["route"]
    known = {parameter.alias for parameter in route.dependant.query_params}
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        message = f"unknown parameter; known are {', '.join(sorted(known))}"
        raise RequestValidationError(
            [{"type": "extra_forbidden", "loc": ("query", name), "msg": message, "input": None} for name in unknown]
        )


ServicesDep = Annotated[Services, Depends(services)]
Limit = Annotated[int, Query(ge=1, le=500, description="How many to return at most.")]
Offset = Annotated[int, Query(ge=0, le=1_000_000, description="How many to leave out at the start.")]
Length = Annotated[int, Query(ge=0, le=10_000_000, description="Mean tokens of one request.")]
# PostgreSQL's texts cannot hold a NUL
Text = Annotated[str, Query(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]*$")]
