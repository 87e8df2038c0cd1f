"""The application: routes, and what lies around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi import APIRouter, FastAPI, Response
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from .. import __version__
from ..adapters.base import Adapter
from ..adapters.errors import ComposeError
from ..adapters.runs import Runs
from .catalogue import cards, health
from .errors import NOT_READY, OK, ErrorBoundary, respond
from .loading import loading_routes
from .metrics import Metrics
from .record import Record, Recorder
from .relay import Relays
from .routes import openai_routes
from .run_bodies import RunBody
from .runs import runs_routes
from .schema import ChatBody, CompletionBody
from .settings import Settings
from .tasks import Tasks

_ABOUT = """
Models of one's own machine behind OpenAI's API. Use the official SDKs with this server's URL and `/v1` as base URL;
the same routes are there without `/v1` too.
"""
_EXPOSED = ("x-request-id", "x-task-id", "openai-processing-ms", "openai-version", "retry-after")


def create_app(models: Sequence[Adapter], settings: Settings, runs: Runs | None = None) -> FastAPI:
    """The HTTP face of `models` and `runs`, which are opened already and are closed by whoever opened them.

    Runs that nobody waits for end with the app's lifespan.
    """
    tasks = Tasks()
    metrics = Metrics(lambda: cards(models))
    app = _App(
        title="model-compose",
        version=__version__,
        description=_ABOUT,
        redoc_url=None,
        lifespan=tasks.lifespan,
        middleware=[Middleware(ErrorBoundary)],
        exception_handlers={ComposeError: respond, HTTPException: respond},
    )
    app.front = _front(app.routed, models, settings, metrics)
    api = openai_routes(models, settings)
    app.include_router(api, prefix="/v1")
    app.include_router(api, include_in_schema=False)
    loading = loading_routes(models, settings)
    app.include_router(loading, prefix="/v1")
    app.include_router(loading, include_in_schema=False)
    if runs is not None:
        app.include_router(runs_routes(runs, tasks, settings), prefix=settings.base_path)
        if settings.base_path:
            app.include_router(_health_routes(models), prefix=settings.base_path, include_in_schema=False)
    app.include_router(_health_routes(models))
    app.include_router(_service_routes(models, metrics))
    return app


def _front(app: ASGIApp, models: Sequence[Adapter], settings: Settings, metrics: Metrics) -> ASGIApp:
    """What a request passes before the app with its routes. Relayed requests get no further, because to find a route
    costs more than all that is done with them.
    """
    browsers = _Cors(
        ErrorBoundary(Relays(app, models, settings)),
        allow_origins=settings.cors_origins,
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=_EXPOSED,
    )
    return Recorder(browsers, over=metrics.observe)


def _health_routes(models: Sequence[Adapter]) -> APIRouter:
    router = APIRouter(tags=["Service"])

    @router.head("/health", include_in_schema=False)
    @router.get("/health", summary="Say how the models are")
    async def is_healthy() -> Response:
        """Whether models are loading, ready or failed; 200 when requests can be answered."""
        state = health(cards(models))
        return Response(
            msgspec.json.encode(state), OK if state["status"] == "ok" else NOT_READY, media_type="application/json"
        )

    return router


def _service_routes(models: Sequence[Adapter], metrics: Metrics) -> APIRouter:
    """What is there for people and for the programs that watch over the server."""
    router = APIRouter(tags=["Service"])

    @router.head("/", include_in_schema=False)
    @router.get("/", include_in_schema=False)
    async def welcome() -> Response:
        names = ", ".join(card.id for card in cards(models)) or "none"
        return Response(
            f"model-compose {__version__}: OpenAI's API is at /v1, its description at /docs.\nModels: {names}\n",
            media_type="text/plain",
        )

    @router.get("/metrics", summary="Counts and times for Prometheus")
    async def read_metrics() -> Response:
        """Prometheus' text format."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


class _Cors(CORSMiddleware):
    """Leaves those alone who are no browsers and send no origin; what they get here is the same for every origin."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and b"origin" not in Record.of(scope).headers:
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


class _App(FastAPI):
    """FastAPI behind what stands in `front` of it, with the schemas of the bodies that `routes.py` parses itself."""

    front: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.front(scope, receive, send)

    async def routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app with its routes."""
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            page = super().openapi()
            template = "#/components/schemas/{model}"
            _, schemas = models_json_schema(
                [(ChatBody, "validation"), (CompletionBody, "validation"), (RunBody, "validation")],
                ref_template=template,
            )
            page.setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])
        return self.openapi_schema or {}
