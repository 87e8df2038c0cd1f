"""The runs API: workflows with the input they read, and what has become of each run."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from ..adapters.errors import ModelNotFound
from ..adapters.runs import Runs, WorkflowCard
from .auth import authorize
from .errors import ACCEPTED
from .forms import body_of_form, is_form
from .limits import read_body
from .record import Record
from .run_answer import RunAnswer
from .run_bodies import RunBody, TaskBody, TaskDetails, WorkflowSchema
from .settings import Settings
from .tasks import Task, Tasks
from .validation import parse, validated

_TAKES = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {"schema": {"$ref": "#/components/schemas/RunBody"}}
            for kind in ("application/json", "application/x-www-form-urlencoded", "multipart/form-data")
        },
    }
}
_STREAM = {
    "schema": {"type": "string"},
    "example": 'data: Once\n\ndata:  upon\n\nevent: completed\ndata: {"task_id":"task_1","status":"completed"}\n\n',
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": TaskBody, "content": {"text/event-stream": _STREAM}, "description": "What has come of the run"},
    ACCEPTED: {"model": TaskBody, "description": "The run has begun, and nobody waits for it"},
    400: {"model": TaskBody, "description": "The input is wrong"},
    409: {"model": TaskBody, "description": "Somebody has cancelled the run"},
    500: {"model": TaskBody, "description": "The run has failed"},
}


def runs_routes(runs: Runs, tasks: Tasks, settings: Settings) -> APIRouter:
    """The routes under `base_path`, without it."""

    async def authorized(request: Request) -> None:
        authorize(request.headers, settings.api_keys)

    router = APIRouter(dependencies=[Depends(authorized)], tags=["Workflows"])

    @router.post("/workflows/runs", summary="Run a workflow", openapi_extra=_TAKES, responses=_ANSWERS)
    async def run_workflow(request: Request) -> Response:
        """The output of a workflow, as JSON when it is whole, or as server-sent events if it is a stream.

        Of a stream every `data:` is a piece of the output, and the last event is `completed`, with the task, or
        `failed`, with the error. A client that leaves ends its run, unless it did not want to wait.
        """
        record = Record.of(request.scope)
        record.endpoint = "workflows.runs"
        body = _body(await read_body(request, settings.max_body_bytes), request.headers.get("content-type", ""))
        run = runs.run(body.workflow_id, body.input)
        record.model = run.workflow
        if not body.wait_for_completion:
            return _json(tasks.start(run, record).summary, ACCEPTED)
        return RunAnswer(
            run,
            tasks,
            record,
            stream=body.stream,
            is_bare=body.output_only,
            keep_alive=settings.keep_alive,
        )

    @router.get("/workflows", summary="List the workflows", response_model=list[WorkflowCard])
    async def list_workflows() -> Response:
        """All workflows of this server, in the order of their file."""
        return _json(list(runs.workflows()))

    @router.get("/workflows/{workflow_id}/schema", summary="Tell what a workflow reads", response_model=WorkflowSchema)
    async def describe_workflow(workflow_id: str) -> Response:
        """A workflow, its inputs (their names, types and defaults, and whether they can be left out), and its jobs."""
        return _json(
            {
                "workflow": runs.workflow(workflow_id),
                "input": list(runs.inputs(workflow_id)),
                "jobs": list(runs.jobs(workflow_id)),
            }
        )

    @router.get("/tasks/{task_id}", summary="Look at a run", response_model=TaskDetails)
    async def read_task(task_id: str) -> Response:
        """A run under way, or one that ended within the last hour."""
        return _json(_found(tasks, task_id).details)

    @router.post("/tasks/{task_id}/cancel", summary="End a run", response_model=TaskDetails)
    async def cancel_task(task_id: str) -> Response:
        """The run as it is then; one that has ended before stays as it is."""
        _found(tasks, task_id)
        await tasks.cancel(task_id)
        return _json(_found(tasks, task_id).details)

    return router


def _body(raw: bytes, content_type: str) -> RunBody:
    if is_form(raw, content_type):
        return validated(body_of_form(raw, content_type), RunBody)
    return parse(raw, RunBody)


def _found(tasks: Tasks, id: str) -> Task:
    task = tasks.find(id)
    if task is None:
        raise ModelNotFound(
            f"no task '{id[:80]}' here; those that have ended are kept for an hour, and at most a thousand of them",
            param="task_id",
            code="task_not_found",
        )
    return task


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
