"""A runner's workflows and runs as the runs API sees them (`adapters/runs.py`)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

from ..adapters.events import Usage
from ..adapters.runs import (
    FieldPiece,
    InputCard,
    JobCard,
    JobNews,
    JsonPiece,
    News,
    RunState,
    Streaming,
    TextPiece,
    WorkflowCard,
)
from .components.streams import ItemStream, ModelStream, Stream, is_sent_as_stream
from .graph import component_of, default_workflow, model_name, plan
from .jobs import JobFinished, JobStarted, Outcome
from .run import Run
from .runner import Runner
from .schema import Workflow


class WorkflowRuns:
    """The workflows of a runner; usable while the runner is open."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._default = default_workflow(runner.file)

    def workflows(self) -> Sequence[WorkflowCard]:
        """All of them, in the order of the file."""
        return [self._card(workflow) for workflow in self._runner.file.workflows]

    def workflow(self, id: str) -> WorkflowCard:
        """One of them; raises ModelNotFound."""
        return self._card(self._runner.workflow(id))

    def inputs(self, id: str) -> Sequence[InputCard]:
        """What one of them reads; raises ModelNotFound."""
        inputs = self._runner.inputs[self._runner.workflow(id).id]
        return [InputCard(each.name, each.type, each.required, each.default, each.description) for each in inputs]

    def jobs(self, id: str) -> Sequence[JobCard]:
        """The jobs of one of them, each after those it waits for; raises ModelNotFound."""
        steps = plan(self._runner.workflow(id))
        order = [job.id for job in steps.jobs]
        return [
            JobCard(
                job.id,
                component_of(job, self._runner.file).id,
                tuple(sorted(steps.dependencies[job.id], key=order.index)),
            )
            for job in steps.jobs
        ]

    def run(self, workflow: str | None, given: Any) -> WorkflowRun:
        """A run to be entered; raises ModelNotFound or InvalidRequest."""
        return WorkflowRun(self._runner.run(workflow, given))

    def _card(self, workflow: Workflow) -> WorkflowCard:
        return WorkflowCard(
            workflow_id=workflow.id,
            title=workflow.title,
            description=workflow.description,
            default=workflow is self._default,
            model=model_name(workflow),
        )


class WorkflowRun:
    """A run and its news."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def __aenter__(self) -> Self:
        await self._run.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._run.__aexit__(kind, error, traceback)

    @property
    def id(self) -> str:
        return self._run.id

    @property
    def workflow(self) -> str:
        return self._run.workflow

    @property
    def state(self) -> RunState:
        return self._run.state

    @property
    def created(self) -> float:
        return self._run.created

    @property
    def finished(self) -> float | None:
        return self._run.finished

    @property
    def jobs(self) -> Mapping[str, RunState]:
        return self._run.jobs

    @property
    def usage(self) -> Usage:
        return self._run.usage

    @property
    def output(self) -> Any:
        return self._run.output

    @property
    def error(self) -> Exception | None:
        return None if self._run.failure is None else self._run.failure.error

    @property
    def failed_job(self) -> str | None:
        return None if self._run.failure is None else self._run.failure.job

    def cancel(self) -> None:
        """End the run; whoever reads its news gets an error."""
        self._run.cancel()

    async def news(self, *, stream: bool | None = None) -> AsyncGenerator[News]:
        """What happens, up to the end; raises the error that ends the run."""
        tree: Any = None
        async with aclosing(self._run.happenings()) as happenings:
            async for happening in happenings:
                match happening:
                    case JobStarted(job=job):
                        yield JobNews(job, "processing")
                    case JobFinished(job=job):
                        yield JobNews(job, "completed")
                    case Outcome():
                        tree = happening.tree
        if (found := _sent(tree, stream)) is not None:
            yield Streaming()
            async with aclosing(found.items()) as items:
                async for item in items:
                    yield _piece(item, found)
        elif stream and (name := _field(tree)) is not None:
            async with aclosing(tree[name].items()) as items:
                async for item in items:
                    yield FieldPiece(name, item)
        await self._run.value()


def _sent(tree: Any, wanted: bool | None) -> Stream | None:
    """The stream that is sent piece by piece, if there is one."""
    if wanted and isinstance(tree, ModelStream) and tree.form is None:
        tree = tree.declared("text")
    is_sent = wanted is not False and is_sent_as_stream(tree)
    return tree if is_sent and isinstance(tree, ModelStream | ItemStream) else None


def _field(tree: Any) -> str | None:
    """The name under which an output has a model's answer that is still being made."""
    for name, value in tree.items() if isinstance(tree, dict) else ():
        if isinstance(value, ModelStream) and value.declared("text").form:
            return str(name)
    return None


def _piece(item: Any, stream: Stream) -> TextPiece | JsonPiece:
    is_text = stream.form == "text" or (stream.form is None and isinstance(item, str))
    return TextPiece(stream.text(item) if isinstance(stream, ItemStream) else item) if is_text else JsonPiece(item)
