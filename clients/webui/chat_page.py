"""The page for conversations."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from html import escape
from typing import Any

import gradio as gr

from . import snippets
from .answering import answers
from .api import Server
from .conversation import Answer, Choices, Conversation
from .kept import Kept, dump, load
from .look import SCRIPT
from .markup import code_block, plain
from .stops import Stops
from .thread import thread

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


SECONDS_BETWEEN_SAVES = 2.0


class ChatPage:
    """Its components, and what they do.

    `key` is the key for the server, `kept` and `settings` are what the browser remembers of the conversation and of
    what was chosen for it: apart, because one may change while the other does.
    """

    def __init__(self, server: Server, key: gr.BrowserState, kept: gr.BrowserState, settings: gr.BrowserState) -> None:
        self._server = server
        self._key = key
        self._kept = kept
        self._settings = settings
        self._stops = Stops()
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
                self._temperature = gr.Number(None, label="Temperature", placeholder=hint, step=0.1, min_width=100)
                self._top_p = gr.Number(None, label="Top p", placeholder=hint, step=0.05, min_width=100)
            with gr.Row():
                self._max_tokens = gr.Number(None, label="Most tokens", placeholder=hint, min_width=100)
                self._seed = gr.Number(None, label="Seed", placeholder="by chance", min_width=100)
            self._stop_at = gr.Textbox(label="Stop at", info="A text on each line", lines=1, max_lines=4)
            self._tools = gr.Textbox(label="Tools", info="A JSON list, as OpenAI writes it", lines=1, max_lines=10)
        with gr.Accordion("Take along", open=False, elem_id="export"):
            self._export = gr.HTML(
                _export("", Kept(), Choices(), ""),
                apply_default_css=False,
                js_on_load=f"{SCRIPT}.copies(element)",
                elem_classes="exported",
            )

    @property
    def _panel(self) -> list[gr.Textbox | gr.Number]:
        return [self._system, self._temperature, self._top_p, self._max_tokens, self._seed, self._stop_at, self._tools]

    def _listen(self) -> None:
        chosen = [self.model, *self._panel]
        asked = [self._key, self._kept, *chosen]
        shown = [self._thread, self._kept, self._said, self._send, self._stop, self._export]
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
        # Two steps, because the last view of an answer that ends comes a moment after its end.
        self._new.click(self._leave, None, None, **QUIET).then(self._forget, asked, shown, **QUIET)
        for each in self._panel:
            each.blur(_remember, chosen, [self._settings], **QUIET)
        self.model.input(_remember, chosen, [self._settings], **QUIET)

    # What happens

    async def _say(
        self, request: gr.Request, said: str, key: str, found: Any, *chosen: Any
    ) -> AsyncGenerator[tuple[Any, ...]]:
        """Answer a message; while another answer grows, the message stays where it is."""
        if not said.strip() or self._stops.is_working(request.session_hash):
            yield (gr.skip(),) * 6  # without a word, Gradio would empty the whole page
            return
        conversation = load(Kept, found).conversation.say(said.strip())
        async with aclosing(self._answer(conversation, _choices(*chosen), key, request)) as views:
            async for view in views:
                yield view

    async def _act(
        self, request: gr.Request, event: gr.EventData, key: str, found: Any, *chosen: Any
    ) -> AsyncGenerator[tuple[Any, ...]]:
        """Answer an edited message, or one more time."""
        conversation, index = load(Kept, found).conversation, int(event.index)
        again = conversation.edit(index, event.text) if event.what == "edit" else conversation.again(index)
        async with aclosing(self._answer(again, _choices(*chosen), key, request)) as views:
            async for view in views:
                yield view

    async def _answer(
        self, conversation: Conversation, choices: Choices, key: str, request: gr.Request
    ) -> AsyncGenerator[tuple[Any, ...]]:
        try:
            body = choices.body(conversation)
        except ValueError as error:
            failed = conversation.answered(Answer(model=choices.model, error=str(error)))
            yield self._view(request, Kept(failed), choices, key)
            return
        async with (
            self._stops.working(request.session_hash) as stop,
            aclosing(answers(self._server, body, key, stop)) as growing,
        ):
            saved = time.monotonic()
            kept = dump(Kept(conversation.answered(Answer(model=choices.model).cut), body))
            buttons = gr.Button(visible=False), gr.Button(visible=True)
            yield (thread(conversation), kept, "", *buttons, gr.skip())
            async for answer in growing:
                now = conversation.answered(answer)
                if answer.is_whole:
                    yield self._view(request, Kept(now, body), choices, key)
                elif time.monotonic() < saved + SECONDS_BETWEEN_SAVES:
                    yield (thread(now), *[gr.skip()] * 5)
                else:
                    saved = time.monotonic()
                    yield (thread(now), dump(Kept(conversation.answered(answer.cut), body)), *[gr.skip()] * 4)

    def _view(self, request: gr.Request, kept: Kept, choices: Choices, key: str) -> tuple[Any, ...]:
        """Everything as it is when nothing is being answered."""
        return (
            thread(kept.conversation),
            dump(kept),
            gr.skip(),
            gr.Button(visible=True),
            gr.Button(visible=False),
            _export(self._url(request), kept, choices, key),
        )

    def _url(self, request: gr.Request) -> str:
        """The server's URL for the one who looks at the page."""
        return snippets.seen_from(request.headers.get("host", ""), self._server.url)

    async def _end(self, request: gr.Request) -> None:
        """Stop the answer that grows."""
        self._stops.stop(request.session_hash)

    async def _leave(self, request: gr.Request) -> None:
        """Stop the answer that grows, and wait for its end."""
        await self._stops.ended(request.session_hash)

    async def _forget(self, request: gr.Request, key: str, _found: Any, *chosen: Any) -> tuple[Any, ...]:
        """Begin anew."""
        return self._view(request, Kept(), _choices(*chosen), key)

    @property
    def restored(self) -> list[gr.blocks.Block]:
        """What `restore` gives the values of."""
        return [self._thread, self._export, self.model, *self._panel]

    def restore(self, request: gr.Request, found: Any, settings: Any, models: list[str], key: str) -> list[Any]:
        """The page as it was left."""
        kept, choices = load(Kept, found), load(Choices, settings)
        chosen = choices.model if choices.model in models else next(iter(models), None)
        return [
            thread(kept.conversation),
            _export(self._url(request), kept, choices, key),
            gr.Dropdown(models, value=chosen),
            choices.system,
            choices.temperature,
            choices.top_p,
            choices.max_tokens,
            choices.seed,
            choices.stop,
            choices.tools,
        ]


def _remember(*chosen: Any) -> dict[str, Any]:
    """Keep what was chosen in the browser."""
    return dump(_choices(*chosen))


def _choices(
    model: str | None,
    system: str,
    temperature: float | None,
    top_p: float | None,
    max_tokens: float | None,
    seed: float | None,
    stop: str,
    tools: str,
) -> Choices:
    return Choices(
        model=model or "",
        system=system or "",
        temperature=temperature,
        top_p=top_p,
        max_tokens=max_tokens,
        seed=seed,
        stop=stop or "",
        tools=tools or "",
    )


def _export(url: str, kept: Kept, choices: Choices, key: str) -> str:
    body = kept.request
    if not body:
        return plain(
            "After the first answer: the conversation as JSON, and the last request as a curl line and as Python."
        )
    whole = snippets.as_json(choices, kept.conversation)
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
