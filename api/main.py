"""The application. Serve it with `uvicorn api.main:app`; settings come from the environment (see api.settings)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from api import errors
from api.body_limit import BodyLimit
from api.deps import Services
from api.logs import configure_logging
from api.routers import models, operations, rankings, recommend
from api.settings import ApiSettings, ApiSettingsError, load_settings
from api.telemetry import RequestTelemetry

API_VERSION = "1.0.0"
MAX_BODY_BYTES = 64 * 1024


def create_app(settings: ApiSettings) -> FastAPI:
    """An application with connections of its own, which it closes on shutdown. It starts even while database and Redis are down."""
    services = Services.of(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        services.close()

    # /docs with its scripts from this server: it opens without the internet
    app = FastAPIOffline(
        redoc_url=None,
        title="Dyno",
        version=API_VERSION,
        description="Which model, engine, quantization and hardware should serve a load, with the measurements that say so.",
        lifespan=lifespan,
        # otherwise the page asks a public validator about the document
        swagger_ui_parameters={"validatorUrl": None},
    )
    app.state.services = services
    for router in (recommend.router, models.router, rankings.router, operations.router):
        app.include_router(router)
    errors.install(app)
    app.add_middleware(BodyLimit, max_bytes=MAX_BODY_BYTES)
    app.add_middleware(RequestTelemetry, metrics=services.metrics)
    _document_problems(app)
    return app


def _document_problems(app: FastAPI) -> None:
    """Make the OpenAPI document say that problems are `application/problem+json`, which FastAPI has no option for."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        fresh = app.openapi_schema is None
        document = generate()
        if fresh:
            for operation in (o for path in document["paths"].values() for o in path.values()):
                for response in operation["responses"].values():
                    content = response.get("content", {})
                    if content.get("application/json", {}).get("schema") == {"$ref": "#/components/schemas/Problem"}:
                        content[errors.MEDIA_TYPE] = content.pop("application/json")
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def __getattr__(name: str) -> FastAPI:
    """`app`, made on first use: importing this module needs no settings."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    configure_logging()
    try:
        app = create_app(load_settings())
    except ApiSettingsError as error:
        # this is a process' start: a sentence and an exit code, no traceback
        raise SystemExit(f"error: {error}") from None
    globals()["app"] = app
    return app
