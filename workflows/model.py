"""A workflow as a model: an OpenAI request becomes its input, its output becomes the answer's events."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

import msgspec

from ..adapters.base import GenerationRequest, ModelCard, ModelCounters, ModelState
from ..adapters.events import Accepted, Event, Finish, FinishReason, ReasoningDelta, TextDelta, Usage
from .asking import input_of, single, taken_by
from .components.streams import ItemStream, ModelStream
from .graph import component_of, model_name, plan
from .jobs import JobFinished, JobStarted, JobText, Outcome
from .narration import Narration
from .run import Run
from .runner import Runner
from .saying import is_models_own, refuse, said
from .schema import Workflow

_NEED_NO_MODEL = ("shell", "http-client")


class WorkflowModel:
    """One workflow of a runner, as an adapter; usable while the runner is open."""

    def __init__(self, runner: Runner, workflow: Workflow) -> None:
        self._runner = runner
        self._workflow = workflow
        self._inputs = runner.inputs[workflow.id]
        self._is_models_own = is_models_own(workflow, runner.file)
        self._terminal = plan(workflow).terminal
        self._components = {job.id: component_of(job, runner.file) for job in workflow.jobs}
        self._created = int(time.time())
        self._counters = ModelCounters()

    @property
    def name(self) -> str:
        """What clients call it."""
        return model_name(self._workflow)

    def cards(self) -> Sequence[ModelCard]:
        """The workflow, ready once its local models and servers are."""
        return [ModelCard(id=self.name, created=self._created, state=self._state(), counters=self._counters)]

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
        """The events of the last job's model call where that is what the assistant says, else the output as one delta.

        Several prompts are answered one after the other, each by a run of its own.
        """
        taken = taken_by(self._workflow, self._inputs, request)
        if not self._is_models_own:
            refuse(request, self.name, taken)
        usage = Usage(0, 0)
        self._count(running=1, requests=1)
        is_whole = False
        try:
            for index, each in enumerate(single(request)):
                given = input_of(self._workflow, self._inputs, each)
                wishes = _left(each, taken) if self._is_models_own else None
                async with self._runner.run(self._workflow.id, given, request=wishes) as run:
                    async with aclosing(self._answer(run, each.n, is_first=index == 0)) as events:
                        async for event in events:
                            yield _shifted(event, index * request.n)
                    usage += run.usage
            is_whole = True
            yield usage
        finally:
            self._count(running=-1, cancelled=not is_whole)
            self._count(prompt_tokens=usage.prompt_tokens, generated_tokens=usage.completion_tokens)

    async def _answer(self, run: Run, choices: int, *, is_first: bool) -> AsyncGenerator[Event]:
        """The events of one run, all but its usage."""
        is_accepted = not is_first
        narration = Narration()
        outcome = Outcome(None)
        async with aclosing(run.happenings()) as happenings:
            async for happening in happenings:
                if isinstance(happening, Outcome):
                    outcome = happening
                elif not is_accepted and self._is_under_way(happening):
                    is_accepted = True
                    yield Accepted()
                if self._workflow.openai.show_jobs and (text := narration.feed(happening)):
                    yield ReasoningDelta(text)
        words = await said(self._workflow, outcome, choices=choices)
        if isinstance(words, str):
            yield TextDelta(words)
            yield _finish(run.finish_reason)
            return
        async with aclosing(_events(words)) as events:
            async for event in events:
                if not (isinstance(event, Usage) or (isinstance(event, Accepted) and is_accepted)):
                    yield event
        if isinstance(words, ItemStream):
            yield _finish(run.finish_reason)

    def _is_under_way(self, happening: JobStarted | JobText | JobFinished) -> bool:
        """Whether nothing refuses the request any more: a job before the last one was accepted by its model, or needs
        no model.
        """
        if happening.job == self._terminal:
            return False
        return not isinstance(happening, JobStarted) or self._components[happening.job].type in _NEED_NO_MODEL

    def _state(self) -> ModelState:
        """The state of the first of its local models and servers that is not ready."""
        states = [self._runner.state_of(component.id) for component in self._components.values()]
        return next((state for state in states if state.phase != "ready"), ModelState("ready"))

    def _count(self, **changes: int) -> None:
        counters = {name: getattr(self._counters, name) + change for name, change in changes.items()}
        self._counters = msgspec.structs.replace(self._counters, **counters)


def workflow_models(runner: Runner) -> list[WorkflowModel]:
    """Every workflow of a runner's file."""
    return [WorkflowModel(runner, workflow) for workflow in runner.file.workflows]


def _left(request: GenerationRequest, taken: frozenset[str]) -> GenerationRequest:
    """The request without the wishes that reach the workflow as inputs."""
    defaults = GenerationRequest(model=request.model)
    fields = {"tools": "tools", "tool_choice": "tool_choice", "response_format": "constraint", "logprobs": "logprobs"}
    gone = {field: getattr(defaults, field) for name, field in fields.items() if name in taken}
    return msgspec.structs.replace(request, **gone)


def _shifted(event: Event, by: int) -> Event:
    if by == 0 or isinstance(event, Accepted | Usage):
        return event
    return msgspec.structs.replace(event, choice=event.choice + by)


async def _events(words: ModelStream | ItemStream) -> AsyncGenerator[Event]:
    if isinstance(words, ModelStream):
        async with aclosing(words.parts) as parts:
            async for part in parts:
                yield part
        return
    async with aclosing(words.items()) as items:
        async for item in items:
            if text := words.text(item):
                yield TextDelta(text)


def _finish(reason: FinishReason | None) -> Finish:
    # Calls of tools are not in a text.
    return Finish("stop" if reason in (None, "tool_calls") else reason)
