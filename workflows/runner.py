"""A compose file at work: its components, opened, and the runs of its workflows."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from ..adapters.base import Adapter, GenerationRequest, ModelState
from ..adapters.errors import ModelUnavailable
from ..adapters.transformers.adapter import TransformersAdapter
from ..adapters.transformers.settings import ModelSettings
from ..adapters.vllm.adapter import UpstreamAdapter
from ..adapters.vllm.managed import ManagedSettings, managed_vllm
from ..adapters.vllm.settings import UpstreamSettings
from .components.call import Call, Component, End, Meter
from .components.http_client import HttpClient
from .components.http_server import HttpServer
from .components.model import ChatModel, Find, TextModel
from .components.settings import AnySettings, settings_of
from .components.shell import Shell
from .components.workflow import SubWorkflow
from .given import accepted, laid_over
from .graph import plan, workflow_of
from .inputs import inputs_of
from .jobs import Task
from .references import render_deep
from .run import Run, is_nested
from .schema import (
    Action,
    ChatModelComponent,
    HttpClientComponent,
    HttpServerComponent,
    NamedModel,
    ShellComponent,
    TextModelComponent,
    Workflow,
    WorkflowComponent,
)
from .schema import Component as ComponentForm

if TYPE_CHECKING:
    from .load import Compose

FindModel = Callable[[str], Adapter | None]
OpenModel = Callable[[ModelSettings], AbstractAsyncContextManager[Adapter]]

_held: contextvars.ContextVar[frozenset[int]] = contextvars.ContextVar("_held", default=frozenset())


class Runner:
    """Runs the workflows of a compose file; entering it opens the components.

    `models` finds any model of the server by name, these workflows included. Local models are opened with `open_model`,
    one for all components that want the same.
    """

    def __init__(
        self, compose: Compose, models: FindModel = lambda name: None, *, open_model: OpenModel = TransformersAdapter
    ) -> None:
        self.file = compose.file
        self._folder = compose.folder
        self._find_model = models
        self._open_model = open_model
        self._plans = {workflow.id: plan(workflow) for workflow in self.file.workflows}
        self.inputs = {workflow.id: inputs_of(workflow, self.file) for workflow in self.file.workflows}
        self._components: dict[str, Component] = {}
        self._limits: dict[str, asyncio.Semaphore] = {}
        self._local: dict[bytes, Adapter] = {}
        self._model_of: dict[str, Adapter] = {}
        self._servers: dict[str, HttpServer] = {}
        self._opened = AsyncExitStack()
        at_once = self.file.controller.max_concurrent_count
        self._slots = None if at_once is None else asyncio.Semaphore(at_once)

    @property
    def local_models(self) -> Sequence[Adapter]:
        """The adapters of the models that were opened for the components."""
        return list(self._local.values())

    @property
    def servers(self) -> Sequence[HttpServer]:
        """The components that are servers, of which those that are run here have a card."""
        return list(self._servers.values())

    def state_of(self, component: str) -> ModelState:
        """What a component's local model or server is doing."""
        source = self._model_of.get(component) or self._servers.get(component)
        states = [card.state for card in source.cards()] if source is not None else []
        return next((state for state in states if state.phase != "ready"), ModelState("ready"))

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opened:
            for form in self.file.components:
                self._components[form.id] = await self._open(form, opened)
                if form.max_concurrent_count is not None:
                    self._limits[form.id] = asyncio.Semaphore(form.max_concurrent_count)
            self._opened = opened.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._opened.aclose()

    def workflow(self, id: str | None = None) -> Workflow:
        """The workflow of that id, the default one if it is None; raises ModelNotFound."""
        return workflow_of(self.file, id)

    def run(
        self,
        workflow: str | None = None,
        given: Any = None,
        *,
        request: GenerationRequest | None = None,
        meter: Meter | None = None,
        end: End | None = None,
    ) -> Run:
        """A run of a workflow with the input `given`, to be entered; raises InvalidRequest for a wrong input.

        `request` is an OpenAI request whose wishes the last model call has to honour; `meter` counts the run's tokens,
        `end` is told why its answer ended.
        """
        chosen = self.workflow(workflow)
        complete = _prepared(chosen, accepted(chosen.id, self.inputs[chosen.id], {} if given is None else given))
        task = Task(chosen, self._plans[chosen.id], self.file, complete, meter or Meter(), request, end or End())
        slot = nullcontext() if self._slots is None or is_nested() else self._slots
        return Run(task, self._call, slot)

    @asynccontextmanager
    async def _call(self, form: ComponentForm, action: Action, call: Call) -> AsyncIterator[Any]:
        """A component's answer, once fewer calls than its limit are open; calls within calls do not count again."""
        limit = self._limits.get(form.id)
        component = self._components[form.id]
        if limit is None or id(limit) in _held.get():
            async with component.call(action, call) as result:
                yield result
            return
        async with limit:
            token = _held.set(_held.get() | {id(limit)})
            try:
                async with component.call(action, call) as result:
                    yield result
            finally:
                _held.reset(token)

    async def _open(self, form: ComponentForm, opened: AsyncExitStack) -> Component:
        match form:
            case ChatModelComponent():
                return ChatModel(await self._finder(form, opened))
            case TextModelComponent():
                return TextModel(await self._finder(form, opened))
            case HttpClientComponent():
                return await opened.enter_async_context(HttpClient.opened(form))
            case HttpServerComponent():
                server = await opened.enter_async_context(HttpServer.opened(form, self._folder))
                self._servers[form.id] = server
                return server
            case ShellComponent():
                return Shell(form, self._folder)
            case WorkflowComponent():
                return SubWorkflow(self._run_inside)

    async def _finder(self, form: ChatModelComponent | TextModelComponent, opened: AsyncExitStack) -> Find:
        """How to find a component's model when it is called; a local one is opened now."""
        if isinstance(form.model, NamedModel):
            name = form.model.name
            return lambda: (self._named(name), name)
        settings = settings_of(form, self._folder)
        key = msgspec.json.encode(settings)
        adapter = self._local.get(key)
        if adapter is None:
            adapter = self._local[key] = await opened.enter_async_context(self._adapter(settings))
        self._model_of[form.id] = adapter
        known = settings.model if isinstance(settings, UpstreamSettings) else settings.name
        return lambda: (adapter, known or _first_name(adapter, form.id))

    def _adapter(self, settings: AnySettings) -> AbstractAsyncContextManager[Adapter]:
        match settings:
            case ManagedSettings():
                return managed_vllm(settings)
            case UpstreamSettings():
                return UpstreamAdapter(settings)
            case _:
                return self._open_model(settings)

    def _named(self, name: str) -> Adapter:
        adapter = self._find_model(name)
        if adapter is None:
            # Whether it will ever be here was looked at before; it can only be at a server that has not answered yet.
            raise ModelUnavailable(f"no server has told of a model '{name}' yet", retry_after=2)
        return adapter

    @asynccontextmanager
    async def _run_inside(self, workflow: str | None, given: Any, call: Call) -> AsyncIterator[Any]:
        async with self.run(workflow, given, request=call.request, meter=call.meter, end=call.end) as run:
            yield await run.outcome()


def _first_name(adapter: Adapter, component: str) -> str:
    """The first of the models that the servers of a component have."""
    cards = adapter.cards()
    if not cards:
        raise ModelUnavailable(f"the servers of component '{component}' have told of no model yet", retry_after=2)
    return cards[0].id


def _prepared(workflow: Workflow, given: Any) -> Any:
    """What the jobs get: the caller's input, and over it what the workflow's own `input` makes of it."""
    if workflow.input is None:
        return given
    return laid_over(given, render_deep(workflow.input, {"input": given}))
