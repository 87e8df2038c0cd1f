"""What a workflow is to those who run it from outside: what it reads, and what happens in a run.

    Runs           the workflows that can be run
    WorkflowCard   one of them, as it is listed
    InputCard      one of the inputs that it reads
    JobCard        one of its jobs
    Run            one run
    News           what a run tells: JobNews, then perhaps Streaming and pieces of the output

The news end with the run: when there are no more of them the output is whole; an error is raised from them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from .events import Usage

RunState = Literal["pending", "processing", "completed", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class InputCard:
    """An input; `default` stands for one that is not given."""

    name: str
    type: str
    required: bool
    default: Any
    description: str | None


@dataclass(frozen=True, slots=True)
class WorkflowCard:
    """A workflow; `default` is the one that is run when none is named, `model` its name for OpenAI clients."""

    workflow_id: str
    title: str | None
    description: str | None
    default: bool
    model: str


@dataclass(frozen=True, slots=True)
class JobCard:
    """A job: what it calls, and the jobs that it waits for, in the order of the file."""

    id: str
    component: str
    depends_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobNews:
    """A job has begun, or is done."""

    job: str
    status: RunState


@dataclass(frozen=True, slots=True)
class Streaming:
    """The output will come in pieces."""


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A piece of an output that is a text."""

    text: str


@dataclass(frozen=True, slots=True)
class JsonPiece:
    """An item of an output that is a list of JSON values."""

    value: Any


@dataclass(frozen=True, slots=True)
class FieldPiece:
    """A piece of a text that stands under a name in an output, which is told as a whole in the end."""

    field: str
    text: str


News = JobNews | Streaming | TextPiece | JsonPiece | FieldPiece


class Run(AbstractAsyncContextManager["Run"], Protocol):
    """One run. It is performed while it is open, and leaving it ends it; times are in Unix seconds."""

    @property
    def id(self) -> str: ...

    @property
    def workflow(self) -> str:
        """The workflow's id."""
        ...

    @property
    def state(self) -> RunState: ...

    @property
    def created(self) -> float: ...

    @property
    def finished(self) -> float | None: ...

    @property
    def jobs(self) -> Mapping[str, RunState]:
        """How far each job is."""
        ...

    @property
    def usage(self) -> Usage:
        """The tokens that all model calls took so far."""
        ...

    @property
    def output(self) -> Any:
        """The whole output; None until it is there."""
        ...

    @property
    def error(self) -> Exception | None:
        """Why the run failed."""
        ...

    @property
    def failed_job(self) -> str | None:
        """The job that failed."""
        ...

    def news(self, *, stream: bool | None = None) -> AsyncGenerator[News]:
        """What happens, up to the end; raises the error that ends the run.

        The output comes in pieces if the workflow says so; `stream` says otherwise, and True also tells the pieces of a
        model's answer that is a part of the output.
        """
        ...

    def cancel(self) -> None:
        """End the run; whoever reads its news gets an error."""
        ...


class Runs(Protocol):
    """The workflows of a server."""

    def workflows(self) -> Sequence[WorkflowCard]:
        """All of them."""
        ...

    def workflow(self, id: str) -> WorkflowCard:
        """One of them; raises ModelNotFound."""
        ...

    def inputs(self, id: str) -> Sequence[InputCard]:
        """What one of them reads; raises ModelNotFound."""
        ...

    def jobs(self, id: str) -> Sequence[JobCard]:
        """The jobs of one of them, each after those it waits for; raises ModelNotFound."""
        ...

    def run(self, workflow: str | None, given: Any) -> Run:
        """A run to be entered, of the default workflow if none is named; raises ModelNotFound or InvalidRequest."""
        ...
