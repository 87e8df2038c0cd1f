"""Taking models into memory and out of it, as llama.cpp's server spells it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from ..adapters.base import Adapter, LoadableAdapter
from ..adapters.errors import InvalidRequest
from .auth import authorize
from .catalogue import described, find
from .limits import read_body
from .settings import Settings
from .validation import parse


class ModelBody(BaseModel):
    """Which model."""

    model_config = ConfigDict(strict=True)

    model: Annotated[str, Field(description="its name, as in `/v1/models`")]


_TAKES = {"requestBody": {"required": True, "content": {"application/json": {"schema": ModelBody.model_json_schema()}}}}


def loading_routes(models: Sequence[Adapter], settings: Settings) -> APIRouter:
    """The routes, without a prefix; both answer at once with what the model does then."""

    async def authorized(request: Request) -> None:
        authorize(request.headers, settings.api_keys)

    router = APIRouter(dependencies=[Depends(authorized)], tags=["Service"])

    @router.post("/models/load", summary="Load a model", openapi_extra=_TAKES)
    async def load(request: Request) -> Response:
        """Begin to load a model, also one that failed to load; `/health` says how far it is."""
        name, adapter = await _chosen(request)
        adapter.load(name)
        return _told(name)

    @router.post("/models/unload", summary="Unload a model", openapi_extra=_TAKES)
    async def unload(request: Request) -> Response:
        """Give a model's memory back, after its running requests; the next one loads it again."""
        name, adapter = await _chosen(request)
        adapter.unload(name)
        return _told(name)

    async def _chosen(request: Request) -> tuple[str, LoadableAdapter]:
        name = parse(await read_body(request, settings.max_body_bytes), ModelBody).model
        adapter, _ = find(models, name)
        if not isinstance(adapter, LoadableAdapter):
            raise InvalidRequest(f"'{name}' is no model that is loaded and unloaded here", param="model")
        return name, adapter

    def _told(name: str) -> Response:
        return Response(msgspec.json.encode(described(find(models, name)[1])), media_type="application/json")

    return router
