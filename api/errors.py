"""Errors as problem documents (RFC 9457, `application/problem+json`): what is wrong, where, and what to do."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api.explain import explain
from api.schemas.problem import Problem, ProblemItem
from assets.rankings.errors import InvalidRequestError

logger = logging.getLogger("dyno.api.errors")

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 5


class ApiError(Exception):
    """An error that a client is told about."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    type_name = "internal-error"
    title = "Something went wrong here"
    errors: Sequence[ProblemItem] = ()


class DatabaseUnavailableError(ApiError):
    """The database cannot be reached, or did not answer in time. The cause is logged and not told: it names hosts."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    type_name = "database-unavailable"
    title = "The database does not answer"

    def __init__(self, cause: str) -> None:
        super().__init__("the catalog cannot be read at the moment; try again in a few seconds, and look at /readyz if it lasts")
        self.cause = cause


class CatalogNotReadyError(ApiError):
    """Tables are missing or empty: nothing has been built yet."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    type_name = "catalog-not-ready"
    title = "The catalog is not built yet"

    def __init__(self, cause: str) -> None:
        super().__init__("no results have been built into rankings yet; run ./dyno demo, or materialize the rankings in Dagster")
        self.cause = cause


class UnknownUseCaseError(ApiError):
    """A use case that the taxonomy does not have."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    type_name = "invalid-request"
    title = "The request is not valid"

    def __init__(self, use_case: str, known: Sequence[str], location: str) -> None:
        super().__init__(f"the use case '{use_case}' is unknown")
        self.errors = [ProblemItem(location=location, detail=str(self), fix=f"choose one of {', '.join(known)}")]


class ModelNotFoundError(ApiError):
    """A model that is not registered."""

    status = HTTPStatus.NOT_FOUND
    type_name = "not-found"
    title = "There is no such model"

    def __init__(self, model: str) -> None:
        super().__init__(f"the model '{model}' is not registered; GET /api/v1/models lists the ones that are")


def problem_response(
    status: int, type_name: str, title: str, detail: str, *, errors: Sequence[ProblemItem] = (), headers: dict[str, str] | None = None
) -> Response:
    """A problem document as a response."""
    problem = Problem(type=f"urn:dyno:problem:{type_name}", title=title, status=status, detail=detail, errors=list(errors))
    # ASCII only: an echoed name may hold what UTF-8 cannot encode
    return Response(json.dumps(problem.model_dump()), status_code=status, headers=headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make every error of the application a problem document."""
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(InvalidRequestError, _invalid_terms)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


def _api_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    headers = None
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers = {"retry-after": str(RETRY_AFTER_S)}
        logger.warning(error.title, extra={"cause": getattr(error, "cause", ""), "request_id": _request_id(request)})
    return problem_response(error.status, error.type_name, error.title, str(error), errors=error.errors, headers=headers)


def _invalid_terms(_: Request, error: Exception) -> Response:
    if not isinstance(error, InvalidRequestError):
        raise error
    problem, _separator, fix = error.problem.partition("; ")
    return _unprocessable([ProblemItem(location=f"body.{error.field}", detail=problem, fix=fix or "correct the value")])


def _invalid_request(_: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    return _unprocessable(explain(error.errors()))


def _unprocessable(errors: list[ProblemItem]) -> Response:
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    detail = f"{first.location}: {first.detail}; {first.fix}{more}"
    return problem_response(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", "The request is not valid", detail, errors=errors)


def _http_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    advice = {
        HTTPStatus.NOT_FOUND: "there is nothing at this address; /docs lists what there is",
        HTTPStatus.METHOD_NOT_ALLOWED: "this address does not take this method; /docs lists what it takes",
        HTTPStatus.BAD_REQUEST: "the body cannot be read; send JSON in UTF-8 with content-type: application/json",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "the body is too large; a request is a few hundred bytes",
    }
    title = HTTPStatus(error.status_code).phrase
    detail = advice.get(HTTPStatus(error.status_code), str(error.detail))
    type_name = title.lower().replace(" ", "-")
    headers: dict[str, Any] | None = dict(error.headers) if error.headers else None
    return problem_response(error.status_code, type_name, title, detail, headers=headers)


def _unexpected(request: Request, error: Exception) -> Response:
    request_id = _request_id(request)
    logger.error("unexpected error", exc_info=error, extra={"request_id": request_id})
    detail = f"this is a fault of the API, not of the request; its log has the cause under the request id {request_id}"
    return problem_response(ApiError.status, ApiError.type_name, ApiError.title, detail)


def _request_id(request: Request) -> str:
    return str(getattr(request.state, "request_id", "unknown"))
