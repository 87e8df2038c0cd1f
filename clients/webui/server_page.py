"""The page that shows the server at a glance."""

from __future__ import annotations

import time
from html import escape
from typing import Any

import gradio as gr

from .api import Refused, Server
from .chat_page import QUIET
from .glance import Counts, counts, glance
from .look import SCRIPT

SECONDS_BETWEEN_LOOKS = 2.0


class ServerPage:
    """Its components, and what they do; it looks at the server while `tab` is chosen."""

    def __init__(self, server: Server, key: gr.BrowserState) -> None:
        self._server = server
        self._key = key
        self._before = gr.State(None)
        self._shown = gr.HTML(
            elem_id="server", apply_default_css=False, js_on_load=f"{SCRIPT}.switches(element, trigger, 'act')"
        )
        self._said = gr.HTML(elem_id="server-said", apply_default_css=False)
        self.timer = gr.Timer(SECONDS_BETWEEN_LOOKS, active=False)
        seen = [self._shown, self._before]
        self.timer.tick(self._look, [self._key, self._before], seen, **QUIET)
        acted = self._shown.act(self._switch, [self._key], [self._said], **QUIET)
        acted.then(self._look, [self._key, self._before], seen, **QUIET)

    def watch_while(self, tab: gr.Tab, others: list[gr.Tab]) -> None:
        """Look as long as that tab is chosen."""
        tab.select(lambda: gr.Timer(active=True), None, [self.timer], **QUIET).then(
            self._look, [self._key, self._before], [self._shown, self._before], **QUIET
        )
        for other in others:
            other.select(lambda: gr.Timer(active=False), None, [self.timer], **QUIET)

    async def _look(self, key: str, before: Counts | None) -> tuple[Any, ...]:
        try:
            models = await self._server.states(key)
            workflows = [card.model for card in await self._server.workflows(key)]
            now = counts(await self._server.metrics(), time.monotonic())
        except Refused as error:
            return f'<div class="error" role="alert">{escape(str(error))}</div>', before
        return glance(models, workflows, before, now), now

    async def _switch(self, event: gr.EventData, key: str) -> str:
        """Load or unload a model; what comes of it is seen on its card."""
        try:
            await self._server.switch(event.model, event.what, key)
        except Refused as error:
            return f'<div class="error" role="alert">{escape(str(error))}</div>'
        return ""
