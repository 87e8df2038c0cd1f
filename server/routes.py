"""The OpenAI API."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from .. import __version__
from ..adapters.base import Adapter, GenerationRequest
from . import decode
from .auth import authorize
from .catalogue import cards, described, find
from .encode import ChatEncoder, Encoder, Frame, TextEncoder
from .limits import check_choices, read_body
from .record import Record
from .schema import Body, ChatBody, CompletionBody
from .settings import Settings
from .streams import Answer
from .validation import parse


def openai_routes(models: Sequence[Adapter], settings: Settings) -> APIRouter:
    """The routes of OpenAI's API over `models`, without a prefix."""

    async def authorized(request: Request) -> None:
        authorize(request.headers, settings.api_keys)

    router = APIRouter(dependencies=[Depends(authorized)], tags=["OpenAI"])

    @router.post("/chat/completions", summary="Answer a conversation", openapi_extra=_takes(ChatBody))
    async def chat_completions(request: Request) -> Response:
        """The next message of a conversation; with `stream`, piece by piece as server-sent events."""
        Record.of(request.scope).endpoint = "chat.completions"
        body = parse(await read_body(request, settings.max_body_bytes), ChatBody)
        asked = decode.chat(body, strict=settings.strict)
        frame = _frame("chatcmpl", body, asked)
        frame = msgspec.structs.replace(
            frame,
            service_tier=None if body.service_tier is None else "default",
            old_functions=bool(body.functions),
        )
        return answer(request, body, asked, frame, ChatEncoder)

    @router.post("/completions", summary="Continue a text", openapi_extra=_takes(CompletionBody))
    async def completions(request: Request) -> Response:
        """What follows a text, or each of several texts; with `stream`, piece by piece as server-sent events."""
        Record.of(request.scope).endpoint = "completions"
        body = parse(await read_body(request, settings.max_body_bytes), CompletionBody)
        asked = decode.completion(body, strict=settings.strict)
        return answer(request, body, asked, _frame("cmpl", body, asked), TextEncoder)

    @router.get("/models", summary="List the models")
    async def list_models() -> Response:
        """All models that this server has, also those that still load."""
        return _json({"object": "list", "data": [described(card) for card in cards(models)]})

    @router.get("/models/{model_id:path}", summary="Describe a model")
    async def retrieve_model(model_id: str) -> Response:
        """One model; its id may have slashes."""
        name = model_id.rstrip("/")
        return _json(described(find(models, name)[1])) if name else await list_models()

    def answer(
        request: Request, body: Body, asked: GenerationRequest, frame: Frame, encoder: Callable[[Frame], Encoder]
    ) -> Answer:
        check_choices(asked, settings.max_choices)
        adapter, card = find(models, asked.model)
        record = Record.of(request.scope)
        record.model = card.id
        return Answer(
            adapter.generate(asked),
            encoder(frame),
            record,
            choices=frame.choices,
            is_stream=bool(body.stream),
            keep_alive=settings.keep_alive,
        )

    return router


def _frame(prefix: str, body: Body, asked: GenerationRequest) -> Frame:
    return Frame(
        id=f"{prefix}-{secrets.token_hex(12)}",
        created=int(time.time()),
        model=asked.model,
        fingerprint=_fingerprint(asked.model),
        choices=asked.n * max(1, len(asked.prompts)),
        usage=_how_much_usage(body),
    )


def _fingerprint(model: str) -> str:
    """The same for answers that the same program gave with the same model."""
    return f"fp_{hashlib.sha1(f'{__version__} {model}'.encode(), usedforsecurity=False).hexdigest()[:10]}"


def _how_much_usage(body: Body) -> Literal["never", "last", "always"]:
    options = body.stream_options
    if options is None:
        return "never"
    return "always" if options.continuous_usage_stats else "last" if options.include_usage else "never"


def _takes(body: type[BaseModel]) -> dict[str, Any]:
    """The documentation of a body that FastAPI does not parse; `app.py` adds the schema itself."""
    schema = {"$ref": f"#/components/schemas/{body.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
