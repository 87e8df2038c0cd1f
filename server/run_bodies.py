"""The bodies of the runs API, as they are checked and as `/docs` shows them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from ..adapters.runs import InputCard, JobCard, RunState, WorkflowCard


class RunBody(BaseModel):
    """What is to be run, and how it is answered."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"example": {"input": {"user_prompt": "Explain quantum computing in simple terms."}}},
    )

    workflow_id: Annotated[str | None, Field(description="The default workflow if left out.")] = None
    input: Annotated[Any, Field(description="An object with the inputs that the workflow reads.")] = None
    wait_for_completion: Annotated[bool, Field(description="False answers at once, with the task's id.")] = True
    output_only: Annotated[bool, Field(description="The bare output in place of the task, unless it streams.")] = False
    stream: Annotated[
        bool | None,
        Field(
            description="True sends a text piece by piece, whatever the file says, and news: of the jobs "
            "(`event: job`), of what the pieces are (`event: output`), and, if the output is an object with a model's "
            "answer in it, the pieces of that (`event: field`). False sends everything at the end. "
            "If left out, the workflow decides."
        ),
    ] = None


class ErrorBody(BaseModel):
    """Why a run has no output, and in which job it failed."""

    message: str
    type: str
    param: str | None
    code: str | None
    job: str | None


class TaskBody(BaseModel):
    """A run that was asked for; it has its output when it is completed, and an error when it is failed or cancelled."""

    task_id: str
    status: RunState
    output: Any = None
    error: ErrorBody | None = None


class UsageBody(BaseModel):
    """Tokens of all model calls of a run."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TaskDetails(TaskBody):
    """All that is known of a run; times are in Unix seconds."""

    workflow_id: str
    created_at: float
    finished_at: float | None
    jobs: dict[str, RunState]
    usage: UsageBody


class WorkflowSchema(BaseModel):
    """A workflow, what it reads, and what it does; an input's `type` is one of the compose file's, its `default` may be
    null, and a job waits for those in `depends_on`.
    """

    workflow: WorkflowCard
    input: list[InputCard]
    jobs: list[JobCard]
