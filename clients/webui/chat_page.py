"""The page for conversations."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from html import escape
from typing import Any

import gradio as gr

from . import snippets
from .answering import answers
from .api import Server
from .conversation import Answer, Choices, Conversation
from .kept import Kept
from .look import SCRIPT
from .markup import code_block, plain
from .stops import Stops
from .thread import thread

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


class ChatPage:
    """Its components, and what they do. `kept` is the browser's memory, `key` the key for the server."""

    def __init__(self, server: Server, key: gr.BrowserState, kept: gr.BrowserState) -> None:
        self._server = server
        self._key = key
        self._kept = kept
        self._stops = Stops()
        self._now = gr.State(Conversation())
        with gr.Row(elem_id="chat", equal_height=False):
            with gr.Column(elem_classes="main", scale=3, min_width=280):
                self._build_main()
            with gr.Column(elem_classes="side", elem_id="settings", scale=1, min_width=260):
                self._build_side()
        self._listen()

    def _build_main(self) -> None:
        with gr.Row(elem_classes="toolbar"):
            self.model = gr.Dropdown([], label="Model or workflow", elem_id="model", scale=4, min_width=160)
            self._new = gr.Button("New chat", size="sm", scale=0, min_width=90)
            settings = gr.Button("Settings", size="sm", scale=0, min_width=90, elem_id="settings-button")
            settings.click(None, js="() => modelCompose.toggleSettings()", api_visibility="private")
        self._thread = gr.HTML(
            thread(Conversation()),
            elem_id="thread",
            elem_classes="thread",
            apply_default_css=False,
            js_on_load=f"{SCRIPT}.thread(element, trigger, watch, 'act')",
        )
        with gr.Row(elem_classes="composer"):
            self._said = gr.Textbox(
                label="Message",
                show_label=False,
                placeholder="Write a message; Shift+Enter for a new line",
                lines=1,
                max_lines=8,
                scale=1,
                container=False,
                elem_id="message",
                html_attributes=gr.InputHTMLAttributes(enterkeyhint="send"),
            )
            self._send = gr.Button("Send", variant="primary", scale=0, min_width=84, elem_id="send")
            self._stop = gr.Button("Stop", variant="stop", scale=0, min_width=84, elem_id="stop", visible=False)

    def _build_side(self) -> None:
        with gr.Accordion("Settings", open=True):
            self._system = gr.Textbox(label="System prompt", lines=3, max_lines=10, elem_id="system")
            hint = "default"
            with gr.Row():
                self._temperature = gr.Number(
                    None, label="Temperature", placeholder=hint, minimum=0, step=0.1, min_width=100
                )
                self._top_p = gr.Number(
                    None, label="Top p", placeholder=hint, minimum=0, maximum=1, step=0.05, min_width=100
                )
            with gr.Row():
                self._max_tokens = gr.Number(
                    None,
                    label="Most tokens",
                    placeholder=hint,
                    minimum=1,
                    precision=0,
                    min_width=100,
                    elem_id="max-tokens",
                )
                self._seed = gr.Number(None, label="Seed", placeholder="by chance", precision=0, min_width=100)
            self._stop_at = gr.Textbox(label="Stop at", info="A text on each line", lines=1, max_lines=4)
            self._tools = gr.Textbox(label="Tools", info="A JSON list, as OpenAI writes it", lines=1, max_lines=10)
        with gr.Accordion("Take along", open=False, elem_id="export"):
            self._export = gr.HTML(
                _export("", Kept(), ""),
                apply_default_css=False,
                js_on_load=f"{SCRIPT}.copies(element)",
                elem_classes="exported",
            )

    @property
    def _choices(self) -> list[gr.Textbox | gr.Number]:
        return [self._system, self._temperature, self._top_p, self._max_tokens, self._seed, self._stop_at, self._tools]

    def _listen(self) -> None:
        asked = [self._key, self._kept, self._now, self.model, *self._choices]
        shown = [self._thread, self._now, self._kept, self._said, self._send, self._stop, self._export]
        gr.on(
            [self._said.submit, self._send.click],
            self._say,
            [self._said, *asked],
            shown,
            trigger_mode="once",
            **QUIET,
        )
        self._thread.act(self._act, asked, shown, trigger_mode="once", **QUIET)
        self._stop.click(self._end, None, None, queue=False, **QUIET)
        self._new.click(self._forget, asked, shown, **QUIET)
        for each in self._choices:
            each.blur(self._keep, asked, [self._kept], **QUIET)
        self.model.input(self._keep, asked, [self._kept], **QUIET)

    # What happens

    async def _say(self, request: gr.Request, said: str, *asked: Any) -> AsyncGenerator[Any]:
        """Answer a message."""
        if not said.strip():
            return
        conversation: Conversation = asked[2]
        async with aclosing(self._answer(conversation.say(said.strip()), asked, request)) as views:
            async for view in views:
                yield view

    async def _act(self, request: gr.Request, event: gr.EventData, *asked: Any) -> AsyncGenerator[Any]:
        """Answer an edited message, or one more time."""
        conversation: Conversation = asked[2]
        index = int(event.index)
        again = conversation.edit(index, event.text) if event.what == "edit" else conversation.again(index)
        async with aclosing(self._answer(again, asked, request)) as views:
            async for view in views:
                yield view

    async def _answer(self, conversation: Conversation, asked: Any, request: gr.Request) -> AsyncGenerator[Any]:
        key, _, _, model, *choices = asked
        chosen = _chosen(choices)
        try:
            body = chosen.body(model or "", conversation)
        except ValueError as error:
            failed = conversation.answered(Answer(model=model, error=str(error)))
            yield self._view(request, Kept(model, chosen, failed), key)
            return
        async with (
            self._stops.working(request.session_hash) as stop,
            aclosing(answers(self._server, body, key, stop)) as growing,
        ):
            kept = Kept(model, chosen, conversation, body).dump()
            buttons = gr.Button(visible=False), gr.Button(visible=True)
            yield (thread(conversation), conversation, kept, "", *buttons, gr.skip())
            async for answer in growing:
                now = conversation.answered(answer)
                if answer.is_whole:
                    yield self._view(request, Kept(model, chosen, now, body), key)
                else:
                    yield (thread(now), *[gr.skip()] * 6)

    def _view(self, request: gr.Request, kept: Kept, key: str) -> tuple[Any, ...]:
        """Everything as it is when nothing is being answered."""
        return (
            thread(kept.conversation),
            kept.conversation,
            kept.dump(),
            gr.skip(),
            gr.Button(visible=True),
            gr.Button(visible=False),
            _export(self._url(request), kept, key),
        )

    def _url(self, request: gr.Request) -> str:
        """The server's URL for the one who looks at the page."""
        return snippets.seen_from(request.headers.get("host", ""), self._server.url)

    async def _end(self, request: gr.Request) -> None:
        """Stop the answer that grows."""
        self._stops.stop(request.session_hash)

    async def _forget(self, request: gr.Request, *asked: Any) -> tuple[Any, ...]:
        """Begin anew."""
        await self._stops.ended(request.session_hash)
        key, _, _, model, *choices = asked
        return self._view(request, Kept(model, _chosen(choices)), key)

    def _keep(self, *asked: Any) -> dict[str, Any]:
        """Remember what was chosen."""
        _, kept, conversation, model, *choices = asked
        return Kept(model, _chosen(choices), conversation, Kept.load(kept).request).dump()

    @property
    def restored(self) -> list[gr.blocks.Block]:
        """What `restore` gives the values of."""
        return [self.model, self._thread, self._now, self._export, *self._choices]

    def restore(self, request: gr.Request, found: Any, models: list[str], key: str) -> list[Any]:
        """The page as it was left."""
        kept = Kept.load(found)
        chosen = kept.model if kept.model in models else next(iter(models), None)
        choices = kept.choices
        return [
            gr.Dropdown(models, value=chosen),
            thread(kept.conversation),
            kept.conversation,
            _export(self._url(request), kept, key),
            choices.system,
            choices.temperature,
            choices.top_p,
            choices.max_tokens,
            choices.seed,
            choices.stop,
            choices.tools,
        ]


def _chosen(values: list[Any]) -> Choices:
    system, temperature, top_p, max_tokens, seed, stop, tools = values
    return Choices(
        system=system or "",
        temperature=temperature,
        top_p=top_p,
        max_tokens=None if max_tokens is None else int(max_tokens),
        seed=None if seed is None else int(seed),
        stop=stop or "",
        tools=tools or "",
    )


def _export(url: str, kept: Kept, key: str) -> str:
    body = kept.request
    if not body:
        return plain(
            "After the first answer: the conversation as JSON, and the last request as a curl line and as Python."
        )
    whole = snippets.as_json(kept.model or "", kept.choices.system, kept.conversation)
    return (
        "<h3>The last request with curl</h3>"
        + code_block(snippets.curl(url, body, has_key=bool(key)), "sh")
        + "<h3>The last request in Python</h3>"
        + code_block(snippets.python(url, body, has_key=bool(key)), "python")
        + "<h3>The conversation</h3>"
        + _download_button(whole, "conversation.json")
        + code_block(whole, "json")
    )


def _download_button(text: str, name: str) -> str:
    """A button that saves a text as a file."""
    return (
        f'<button type="button" class="plain-button" data-act="download" data-name="{escape(name)}" '
        f'data-copy="{escape(text)}">Download as JSON</button>'
    )
