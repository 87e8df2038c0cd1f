"""One performance of a workflow's jobs: each runs as soon as those it depends on are done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, Literal

import msgspec

from ..adapters.base import GenerationRequest
from ..adapters.errors import ComposeError, InvalidRequest
from .components.call import Call, End, Meter
from .components.streams import ItemStream, ModelStream, Stream, gathered, put_for, replay, stream_in
from .given import laid_over
from .graph import Plan, action_of, component_of, jobs_in
from .outputs import hand_on, render_output
from .references import Cast, Template, cast, render_deep
from .schema import Action, Component, ComposeFile, Job, Workflow

MOST_REPETITIONS = 1000

State = Literal["pending", "processing", "completed", "failed", "cancelled"]


class JobStarted(msgspec.Struct, frozen=True):
    """What a job depends on is done."""

    job: str


class JobText(msgspec.Struct, frozen=True):
    """A piece of what a job's model says, at first perhaps an empty one: the model has accepted the request.

    `label` is the job or one of its repetitions.
    """

    job: str
    label: str
    text: str


class JobFinished(msgspec.Struct, frozen=True):
    """A job before the last one has its output."""

    job: str
    output: Any


class Outcome(msgspec.Struct, frozen=True):
    """What the workflow gives: a value, or a tree with a stream in it whose parts follow.

    `scope` has the input and the jobs' outputs that it was made of.
    """

    tree: Any
    scope: Mapping[str, Any] = {}


class Part(msgspec.Struct, frozen=True):
    """A part of the outcome's stream."""

    part: Any


Happening = JobStarted | JobText | JobFinished | Outcome | Part


class Failure(msgspec.Struct, frozen=True):
    """Why a run failed, and in which job."""

    job: str
    error: Exception


class Task(msgspec.Struct, frozen=True):
    """A workflow to be performed: `given` is its input, `request` what a client asks of its last model call.

    `end` is told why the last job's answer ended, if nothing but that is in the output.
    """

    workflow: Workflow
    plan: Plan
    file: ComposeFile
    given: Any
    meter: Meter
    request: GenerationRequest | None = None
    end: End = msgspec.field(default_factory=End)


Caller = Callable[[Component, Action, Call], AbstractAsyncContextManager[Any]]
Tell = Callable[[Happening], Awaitable[None]]


class Jobs:
    """Performs a task's jobs, telling what happens; the first one that fails ends them all and is the `failure`."""

    def __init__(self, task: Task, call: Caller, tell: Tell, parts: AsyncGenerator[Any]) -> None:
        """`parts` is where whoever reads the outcome gets its stream's parts from."""
        self._task = task
        self._call_component = call
        self._tell = tell
        self._parts = parts
        self._outputs: dict[str, Any] = {}
        self._done = {job.id: asyncio.Event() for job in task.plan.jobs}
        self._output: Any = None
        self._is_told = False
        self.states: dict[str, State] = {job.id: "pending" for job in task.plan.jobs}
        self.failure: Failure | None = None

    async def perform(self) -> Any:
        """The whole output; the outcome is told before, at once if it is a stream and else at the end."""
        async with asyncio.TaskGroup() as group:
            for job in self._task.plan.jobs:
                group.create_task(self._perform(job), name=f"job {job.id}")
        if not self._is_told:
            await self._tell(Outcome(self._output, self._scope))
        return self._output

    @property
    def _scope(self) -> dict[str, Any]:
        return {"input": self._task.given, "jobs": self._outputs}

    @property
    def _end(self) -> End:
        """Where the last job's call tells why its answer ended."""
        workflow = self._task.workflow
        is_only = jobs_in((workflow.output, workflow.openai.output)) <= {self._task.plan.terminal}
        return self._task.end if is_only else End()

    async def _perform(self, job: Job) -> None:
        try:
            await self._wait_for(self._task.plan.dependencies[job.id])
            self.states[job.id] = "processing"
            await self._tell(JobStarted(job.id))
            if job.id == self._task.plan.terminal:
                await self._perform_last(job)
            else:
                self._outputs[job.id] = {"output": (output := await self._whole(job))}
                await self._tell(JobFinished(job.id, output))
            self.states[job.id] = "completed"
            self._done[job.id].set()
        except asyncio.CancelledError as error:
            self.states[job.id] = "cancelled"
            if _is_wanted():
                raise
            self._fail(job, ComposeError(f"what job '{job.id}' called was cancelled from elsewhere"))
            raise RuntimeError from error
        except Exception as error:
            self._fail(job, error)
            raise

    def _fail(self, job: Job, error: Exception) -> None:
        self.states[job.id] = "failed"
        self.failure = self.failure or Failure(job.id, error)

    async def _wait_for(self, jobs: frozenset[str]) -> None:
        for job in jobs:
            await self._done[job].wait()

    async def _whole(self, job: Job) -> Any:
        """A job's whole output; if it is repeated, the list of its outputs."""
        if job.repeat_count is None:
            return await self._once(job, job.id, {})
        outputs: list[Any] = [None] * self._repetitions(job)

        async def repeat(index: int) -> None:
            try:
                outputs[index] = await self._once(job, f"{job.id}[{index}]", {"index": index})
            except Exception as error:
                self._fail(job, error)
                raise

        async with asyncio.TaskGroup() as group:
            for index in range(len(outputs)):
                group.create_task(repeat(index), name=f"job {job.id}[{index}]")
        return outputs

    async def _once(self, job: Job, label: str, extra: Mapping[str, Any]) -> Any:
        async with self._called(job, extra, label) as tree:
            return await gathered(tree)

    def _overheard(self, job: Job, label: str, tree: Any, kind: type[Stream]) -> Any:
        """`tree` with a stream that tells its text on the way, if its stream is of that kind."""
        stream = stream_in(tree)
        if not isinstance(stream, kind):
            return tree
        return put_for(stream, stream.through(self._telling(job, label, stream)), tree)

    async def _telling(self, job: Job, label: str, stream: Stream) -> AsyncGenerator[Any]:
        is_accepted = False
        parts: AsyncGenerator[Any] = stream.parts
        async with aclosing(parts):
            async for part in parts:
                if (text := stream.text(part)) or not is_accepted:
                    await self._tell(JobText(job.id, label, text))
                    is_accepted = True
                yield part

    async def _perform_last(self, job: Job) -> None:
        others = jobs_in(self._task.workflow.output) - {job.id}
        if job.repeat_count is not None:
            tree = await self._whole(job)
        else:
            async with self._called(job, {}, None) as coming:
                if all(self._done[other].is_set() for other in others):
                    await self._conclude(job, coming)
                    return
                # Another job may be waiting for the component that this call keeps.
                tree = await _kept(coming)
        await self._wait_for(others)
        await self._conclude(job, tree)

    async def _conclude(self, job: Job, output: Any) -> None:
        """Make the workflow's output of the last job's."""
        template = self._task.workflow.output
        self._outputs[job.id] = {"output": output}
        if template is not None and hand_on(template, {**self._scope, "output": output}) is None:
            output = await gathered(output)
            self._outputs[job.id] = {"output": output}
        self._output = await render_output(template, {**self._scope, "output": output})
        if (stream := stream_in(self._output)) is not None:
            self._output = await self._hand_on(stream, self._output)

    async def _hand_on(self, stream: Stream, tree: Any) -> Any:
        """Tell the outcome and the parts of its stream as they come; the whole of it at the end."""
        self._is_told = True
        told = stream.through(self._parts)
        await self._tell(Outcome(put_for(stream, told, tree), put_for(stream, told, self._scope)))
        seen: list[Any] = []
        parts: AsyncGenerator[Any] = stream.parts
        async with aclosing(parts):
            async for part in parts:
                seen.append(part)
                await self._tell(Part(part))
        return put_for(stream, await stream.through(replay(seen)).value(), tree)

    @asynccontextmanager
    async def _called(self, job: Job, extra: Mapping[str, Any], label: str | None) -> AsyncIterator[Any]:
        """A job's output while its call is open: a tree with at most one stream in it.

        Its text is told under `label`, unless that is None.
        """
        outer = {**self._scope, **extra}
        given = self._task.given if job.input is None else self._laid_over(render_deep(job.input, outer))
        component = component_of(job, self._task.file)
        action = action_of(job, component)
        scope = {"input": given, **extra}
        is_last = job.id == self._task.plan.terminal and job.repeat_count is None
        call = Call(scope, self._task.meter, self._task.request if is_last else None, self._end if is_last else End())
        async with self._call_component(component, action, call) as plain:
            result = plain if label is None else self._overheard(job, label, plain, ModelStream)
            is_told = isinstance(stream_in(result), ModelStream)
            named = {**scope, **dict.fromkeys(("output", "result", "response"), result)}
            output = await render_output(action.output, named)
            tree = await render_output(job.output, {**outer, "output": output})
            yield tree if is_told or label is None else self._overheard(job, label, tree, ItemStream)

    def _laid_over(self, given: Any) -> Any:
        """What a job is given; the only one, which may be written as the workflow itself, gets all else as well."""
        is_only = len(self._task.plan.jobs) == 1
        return laid_over(self._task.given, given) if is_only else given

    def _repetitions(self, job: Job) -> int:
        template = job.repeat_count
        path = template.only.path if isinstance(template, Template) and template.only else "repeat_count"
        value = render_deep(template, self._scope)
        if value is None:
            name = path.removeprefix("input.")
            raise InvalidRequest(f"missing input '{name}': how often to run job '{job.id}'", param=name)
        count = int(cast(value, Cast("integer"), path))
        if not 0 <= count <= MOST_REPETITIONS:
            raise InvalidRequest(f"'{path}' must be between 0 and {MOST_REPETITIONS}, not {count}", param=path)
        return count


async def _kept(tree: Any) -> Any:
    """`tree` with all parts of its stream there already."""
    stream = stream_in(tree)
    if stream is None:
        return tree
    parts: AsyncGenerator[Any] = stream.parts
    async with aclosing(parts):
        return put_for(stream, stream.through(replay([part async for part in parts])), tree)


def _is_wanted() -> bool:
    """Whether the current task was told to end, and not merely something it waited for."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
