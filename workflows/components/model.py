"""Language models as components: any adapter, asked through an action's templates."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

from ...adapters.base import Adapter, GenerationRequest
from ...adapters.errors import InvalidRequest, UnsupportedParameter
from ...adapters.events import Event, Finish, Usage
from ..references import Cast, cast, render_deep
from ..schema import ChatAction, TextAction
from .call import Call
from .messages import messages_of, prompts_of
from .params import honour, rendered, sampling_of
from .streams import ModelStream, closing

Find = Callable[[], tuple[Adapter, str]]
"""The adapter of a model and the name it goes by there; raises ModelUnavailable."""


class ChatModel:
    """A model that answers messages."""

    def __init__(self, find: Find) -> None:
        self._find = find

    @asynccontextmanager
    async def call(self, action: ChatAction, call: Call) -> AsyncIterator[ModelStream]:
        """The answer, as a stream."""
        messages = messages_of(action, call.scope)
        params = rendered(action.params, call.scope)
        adapter, name = self._find()
        asked = GenerationRequest(
            model=name,
            messages=messages,
            tools=_tools(render_deep(action.tools, call.scope)),
            sampling=sampling_of(params),
            n=params.get("num_return_sequences", 1),
        )
        asked = honour(asked, call.request)
        if asked.echo:
            raise UnsupportedParameter.named("echo", "this workflow answers messages, which are no text to repeat.")
        async with aclosing(noted(adapter.generate(asked), call)) as events:
            yield _stream(action, call, ModelStream(events, n=asked.n))


class TextModel:
    """A model that goes on with texts."""

    def __init__(self, find: Find) -> None:
        self._find = find

    @asynccontextmanager
    async def call(self, action: TextAction, call: Call) -> AsyncIterator[ModelStream]:
        """The continuation as a stream whose value begins with the prompt, unless the action's `echo` is false."""
        prompts, is_list = prompts_of(action, call.scope)
        params = rendered(action.params, call.scope)
        adapter, name = self._find()
        asked = GenerationRequest(
            model=name, prompts=prompts, sampling=sampling_of(params), n=params.get("num_return_sequences", 1)
        )
        asked = honour(asked, call.request)
        if asked.tools:
            raise UnsupportedParameter.named("tools", "this workflow goes on with a text; it answers no messages.")
        is_repeated = _boolean(action, "echo", call) and not asked.echo
        texts = prompts if is_repeated else ("",) * len(prompts)
        async with aclosing(noted(adapter.generate(asked), call)) as events:
            yield _stream(action, call, ModelStream(events, texts, asked.n, is_list))


async def noted(events: AsyncIterator[Event], call: Call) -> AsyncGenerator[Event]:
    """`events`, with what they took counted, and why the first answer ended."""
    async with aclosing(closing(events)) as parts:
        async for event in parts:
            if isinstance(event, Usage):
                call.meter.add(event)
            elif isinstance(event, Finish) and event.choice == 0:
                call.end.reason = event.reason
            yield event


def _stream(action: ChatAction | TextAction, call: Call, stream: ModelStream) -> ModelStream:
    return stream.declared("text") if _boolean(action, "streaming", call) else stream


def _boolean(action: ChatAction | TextAction, name: str, call: Call) -> bool:
    value = render_deep(getattr(action, name), call.scope)
    value = type(action).model_fields[name].default if value is None else value
    return bool(cast(value, Cast("boolean"), name))


def _tools(value: Any) -> tuple[dict[str, Any], ...]:
    tools = value if isinstance(value, list) else [] if value is None else [value]
    for tool in tools:
        if not isinstance(tool, dict) or not isinstance(tool.get("function"), dict):
            raise InvalidRequest("a tool must be an object with a 'type' and a 'function', as OpenAI's", param="tools")
    return tuple(tools)
