"""What the API says when it refuses: `Status` objects with the reasons and sentences of apimachinery's pkg/api/errors/errors.go."""

from __future__ import annotations

from collections.abc import Sequence

from tests.kubernetes_api.objects import Object, Resource


class ApiError(Exception):
    """A refusal. `headers` go with the answer."""

    def __init__(self, code: int, reason: str, message: str, details: Object | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.headers = headers or {}
        self.status = status(code, reason, message, details)


def status(code: int, reason: str, message: str, details: Object | None = None) -> Object:
    """A failure as an object."""
    shared: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason}
    return {**shared, **({"details": details} if details else {}), "code": code}


def success(resource: Resource, name: str, uid: str) -> Object:
    """What a delete answers for kinds whose last state is not given back."""
    details = {"name": name, "kind": resource.plural, "uid": uid, **({"group": resource.group} if resource.group else {})}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def not_found(resource: Resource, name: str) -> ApiError:
    """404."""
    return ApiError(404, "NotFound", f'{resource.qualified} "{name}" not found', _details(resource, name))


def already_exists(resource: Resource, name: str) -> ApiError:
    """409 upon create."""
    return ApiError(409, "AlreadyExists", f'{resource.qualified} "{name}" already exists', _details(resource, name))


def conflict(resource: Resource, name: str, why: str) -> ApiError:
    """409 upon a change or a precondition."""
    message = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}'
    return ApiError(409, "Conflict", message, _details(resource, name))


def invalid(resource: Resource, name: str, causes: Sequence[tuple[str, str, str]]) -> ApiError:
    """422. A cause is (field, CauseType, message)."""
    shown = [f"{field}: {message}" for field, _, message in causes]
    text = shown[0] if len(shown) == 1 else f"[{', '.join(shown)}]"
    details = {
        "name": name,
        **({"group": resource.group} if resource.group else {}),
        "kind": resource.kind,
        "causes": [{"reason": reason, "message": message, "field": field} for field, reason, message in causes],
    }
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    return ApiError(422, "Invalid", f'{kind} "{name}" is invalid: {text}', details)


def forbidden(resource: Resource, name: str, why: str) -> ApiError:
    """403."""
    return ApiError(403, "Forbidden", f'{resource.qualified} "{name}" is forbidden: {why}', _details(resource, name))


def bad_request(message: str) -> ApiError:
    """400."""
    return ApiError(400, "BadRequest", message)


def expired(asked: int, oldest: int) -> ApiError:
    """410: the history does not reach back that far."""
    return ApiError(410, "Expired", f"too old resource version: {asked} ({oldest})")


def unauthorized() -> ApiError:
    """401."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def method_not_allowed(message: str) -> ApiError:
    """405."""
    return ApiError(405, "MethodNotAllowed", message)


def unsupported_media_type(given: str, supported: Sequence[str]) -> ApiError:
    """415."""
    message = f"the body of the request was in an unknown format - accepted media types include: {', '.join(supported)}"
    return ApiError(415, "UnsupportedMediaType", f"{message} (was {given!r})")


def internal_error(message: str) -> ApiError:
    """500."""
    return ApiError(500, "InternalError", f"Internal error occurred: {message}", {"causes": [{"message": message}]})


def unavailable(message: str) -> ApiError:
    """503."""
    return ApiError(503, "ServiceUnavailable", message)


def too_many_requests(retry_after_s: int) -> ApiError:
    """429, as priority and fairness answers it: `Retry-After` is a header too."""
    message = "Too many requests, please try again later."
    return ApiError(429, "TooManyRequests", message, {"retryAfterSeconds": retry_after_s}, {"Retry-After": str(retry_after_s)})


def not_in_the_fake(what: str) -> ApiError:
    """501: a real cluster can, this one cannot. Never a silent difference."""
    return ApiError(501, "NotImplemented", f"the fake cluster of tests/kubernetes_api does not have {what}")


def _details(resource: Resource, name: str) -> Object:
    return {"name": name, **({"group": resource.group} if resource.group else {}), "kind": resource.plural}
