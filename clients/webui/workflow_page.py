"""The page for workflows: a form for each, and what comes of a run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from html import escape
from typing import Any

import gradio as gr
import msgspec

from ...adapters.runs import WorkflowCard
from .api import Refused, Schema, Server
from .chat_page import QUIET
from .diagram import diagram
from .forms import Field, WrongInput, fields, given, readable
from .look import SCRIPT
from .running import Progress, jobs_shown, progress, result
from .stops import Stops


class WorkflowPage:
    """Its components, and what they do."""

    def __init__(self, server: Server, key: gr.BrowserState) -> None:
        self._server = server
        self._key = key
        self._stops = Stops()
        self._schema = gr.State(None)  # as JSON, because Gradio hashes it, and a default may be an object
        with gr.Row(elem_id="workflows", equal_height=False):
            with gr.Column(scale=5, min_width=280, elem_classes="main"):
                self.workflow = gr.Dropdown([], label="Workflow", elem_id="workflow")
                self._about = gr.HTML(_NONE, elem_classes="about", apply_default_css=False)
                self._build_form()
            with gr.Column(scale=6, min_width=280, elem_classes="main"):
                self._diagram = gr.HTML(apply_default_css=False, elem_id="diagram")
                self._jobs = gr.HTML(apply_default_css=False, elem_id="jobs")
                self._result = gr.HTML(
                    apply_default_css=False, elem_id="result", js_on_load=f"{SCRIPT}.copies(element)"
                )
        described = [self._schema, self._about, self._diagram, self._jobs, self._result]
        # A run of the workflow before has no place left. Two steps, because its last view comes a moment after its end.
        left = self.workflow.change(self._leave, None, None, **QUIET)
        left.then(self._describe, [self.workflow, self._key], described, **QUIET)

    def _build_form(self) -> None:
        gr.render(inputs=[self._schema], show_progress="hidden")(self._show_form)

    def _show_form(self, found: bytes | None) -> None:
        if found is not None:
            schema = msgspec.json.decode(found, type=Schema)
            form = fields(schema.input)
            with gr.Column(elem_classes="form-fields", elem_id=f"form-{schema.workflow.workflow_id}"):
                components = [_component(schema.workflow.workflow_id, field) for field in form]
            with gr.Row(elem_classes="run-row"):
                run = gr.Button("Run Workflow", variant="primary", scale=0, min_width=160, elem_id="run")
                cancel = gr.Button("Cancel", variant="stop", scale=0, min_width=90, elem_id="cancel", visible=False)
            run.click(
                self._run,
                [self._key, self._schema, *components],
                [run, cancel, self._diagram, self._jobs, self._result],
                trigger_mode="once",
                **QUIET,
            )
            cancel.click(self._cancel, None, None, queue=False, **QUIET)

    def restore(self, cards: Sequence[WorkflowCard]) -> gr.Dropdown:
        """The workflows to choose from."""
        chosen = next((card for card in cards if card.default), cards[0] if cards else None)
        choices = [(card.title or readable(card.workflow_id), card.workflow_id) for card in cards]
        return gr.Dropdown(choices, value=None if chosen is None else chosen.workflow_id, visible=bool(cards))

    async def _leave(self, request: gr.Request) -> None:
        """End the run, and wait for its end."""
        await self._stops.ended(request.session_hash)

    async def _describe(self, workflow: str | None, key: str) -> tuple[Any, ...]:
        """Show what a workflow is and reads."""
        if not workflow:
            return None, _NONE, "", "", ""
        try:
            schema = await self._server.schema(workflow, key)
        except Refused as error:
            return None, f'<div class="error" role="alert">{escape(str(error))}</div>', "", "", ""
        return msgspec.json.encode(schema), _about(schema.workflow), diagram(schema.jobs), "", ""

    async def _run(self, request: gr.Request, key: str, found: bytes, *values: Any) -> AsyncGenerator[Any]:
        """Run the workflow with what is in the form."""
        schema = msgspec.json.decode(found, type=Schema)
        try:
            input = given(fields(schema.input), values)
        except WrongInput as error:
            yield (*[gr.skip()] * 4, f'<div class="error" role="alert">{escape(str(error))}</div>')
            return
        id = schema.workflow.workflow_id
        async with (
            self._stops.working(request.session_hash) as stop,
            aclosing(progress(self._server, id, input, schema.jobs, key, stop)) as views,
        ):
            async for now in views:
                yield (gr.Button(visible=now.is_over), gr.Button(visible=not now.is_over), *_shown(schema, now))

    async def _cancel(self, request: gr.Request) -> None:
        """End the run."""
        self._stops.stop(request.session_hash)


_NONE = (
    '<div class="nothing"><p>This server has no workflows.</p><p>A compose file adds some, and so does '
    "<code>model-compose up -f summarise</code>.</p></div>"
)


def _shown(schema: Schema, now: Progress) -> tuple[str, str, str]:
    return diagram(schema.jobs, now.states), jobs_shown(now), result(now)


def _about(card: WorkflowCard) -> str:
    title = escape(card.title or readable(card.workflow_id))
    model = f'<p class="as-model">For OpenAI clients it is the model <code>{escape(card.model)}</code>.</p>'
    return f"<h2>{title}</h2><p>{escape(card.description or '')}</p>{model}"


def _component(workflow: str, field: Field) -> gr.components.Component:
    common: dict[str, Any] = {
        "label": field.label,
        "info": field.help,
        "interactive": True,
        "key": f"{workflow}/{field.name}",
        "elem_id": f"input-{field.name}",
    }
    match field.kind:
        case "number":
            step = 1.0 if field.type == "integer" else 0.1
            empty: Any = ""  # of None Gradio makes 0
            return gr.Number(empty, placeholder=field.hint, step=step, **common)
        case "check":
            return gr.Checkbox(bool(field.start), **common)
        case "choice":
            return gr.Dropdown(list(field.choices), value=field.start, **common)
        case _:
            return gr.Textbox(placeholder=field.hint, lines=3, max_lines=14, **common)
