"""The Web UI put together: a key where the server wants one, and three pages."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from .api import Refused, Server
from .chat_page import QUIET, ChatPage
from .look import HEADER
from .server_page import ServerPage
from .workflow_page import WorkflowPage

# Not a secret: what the browser keeps is for nobody but its user, and has to outlive this process.
STORE: dict[str, Any] = {"secret": "model-compose"}


class WebUI:
    """The page as Gradio has it."""

    def __init__(self, server: Server) -> None:
        self._server = server
        with gr.Blocks(title="model-compose", analytics_enabled=False, fill_width=True) as self.blocks:
            self._key = gr.BrowserState("", storage_key="model-compose-key", **STORE)
            self._kept = gr.BrowserState(None, storage_key="model-compose-chat", **STORE)
            self._settings = gr.BrowserState(None, storage_key="model-compose-settings", **STORE)
            gr.HTML(HEADER, elem_id="header", apply_default_css=False)
            with gr.Column(visible=False, elem_id="gate") as self._gate:
                self._why = gr.HTML(apply_default_css=False)
                self._given = gr.Textbox(label="API key", type="password", elem_id="key")
                enter = gr.Button("Enter", variant="primary", elem_id="enter")
            with gr.Column(visible=False, elem_id="pages") as self._pages:
                self._build_pages()
            shown = [self._gate, self._why, self._pages, self._key, self._workflows.workflow, *self._chat.restored]
            found = [self._kept, self._settings]
            gr.on([enter.click, self._given.submit], self._enter, [self._given, *found], shown, **QUIET)
            self.blocks.load(self._enter, [self._key, *found], shown, **QUIET)

    def _build_pages(self) -> None:
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Chat", id="chat") as chat:
                self._chat = ChatPage(self._server, self._key, self._kept, self._settings)
            with gr.Tab("Workflows", id="workflows") as workflows:
                self._workflows = WorkflowPage(self._server, self._key)
            with gr.Tab("Server", id="server") as server:
                page = ServerPage(self._server, self._key)
        page.watch_while(server, [chat, workflows])

    async def _enter(self, request: gr.Request, key: str, kept: Any, settings: Any) -> list[Any]:
        """Show the pages, or ask for a key."""
        key = (key or "").strip()
        try:
            models = await self._server.models(key)
            cards = await self._server.workflows(key)
        except Refused as error:
            why = _why(error, key)
            skipped = [gr.skip()] * (2 + len(self._chat.restored))
            return [gr.Column(visible=True), why, gr.Column(visible=False), *skipped]
        return [
            gr.Column(visible=False),
            "",
            gr.Column(visible=True),
            key,
            self._workflows.restore(cards),
            *self._chat.restore(request, kept, settings, models, key),
        ]


def _why(error: Refused, key: str) -> str:
    if not error.wants_key:
        return f'<h2>No server</h2><div class="error" role="alert">{escape(str(error))}</div>'
    if not key:
        about = "It is the one that <code>model-compose up --api-key</code> was given."
        return f"<h2>This server wants a key</h2><p>{about}</p>"
    return '<h2>This server wants a key</h2><div class="error" role="alert">That is not its key.</div>'
