"""Workflows as components of other workflows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from ..references import render_deep
from ..schema import WorkflowAction
from .call import Call

RunWorkflow = Callable[[str | None, Any, Call], AbstractAsyncContextManager[Any]]
"""Runs the workflow of that id (the default one if None) with that input; gives its outcome."""


class SubWorkflow:
    """Runs another workflow of the file."""

    def __init__(self, run: RunWorkflow) -> None:
        self._run = run

    @asynccontextmanager
    async def call(self, action: WorkflowAction, call: Call) -> AsyncIterator[Any]:
        """The workflow's outcome."""
        given = call.scope["input"] if action.input is None else render_deep(action.input, call.scope)
        async with self._run(action.workflow, given, call) as outcome:
            yield outcome
