"""HTML for the page: Markdown that models write, JSON, and code in colours. Pure; what models write is escaped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

LONGEST_COLOURED = 20_000
"""Characters of a text in colours; more would take too long at every piece of it."""


class _Renderer(RendererHTML):
    """Code with a button that copies it, links in a new tab, tables that scroll on a narrow screen."""

    def fence(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return code_block(tokens[idx].content, next(iter(tokens[idx].info.split()), ""))

    def code_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return code_block(tokens[idx].content)

    def link_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        tokens[idx].attrSet("target", "_blank")
        tokens[idx].attrSet("rel", "noopener noreferrer")
        return self.renderToken(tokens, idx, options, env)

    def table_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return '<div class="scrolls" tabindex="0" role="region" aria-label="Table"><table>'

    def table_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return "</table></div>"


# Images are left out: a model must not make the browser fetch something from elsewhere.
_MARKDOWN = MarkdownIt("commonmark", {"html": False, "breaks": True}, renderer_cls=_Renderer)
_MARKDOWN.enable(["table", "strikethrough"]).disable("image")


@lru_cache(maxsize=16)
def markdown(text: str) -> str:
    """Markdown as HTML."""
    return f'<div class="md">{_MARKDOWN.render(text)}</div>'


def plain(text: str) -> str:
    """A text as it stands."""
    return f'<div class="plain">{escape(text)}</div>'


def code_block(code: str, language: str = "") -> str:
    """Code with a button that copies it."""
    label = escape(language or "code")
    button = copy_button(code, f"Copy {language or 'code'}")
    return (
        f'<div class="code"><div class="code-head"><span>{label}</span>{button}</div>'
        f'<pre tabindex="0" role="region" aria-label="{label}"><code>{coloured(code, language)}</code></pre></div>'
    )


def json_block(value: Any) -> str:
    """A value as JSON."""
    return code_block(json.dumps(value, indent=2, ensure_ascii=False), "json")


@lru_cache(maxsize=256)
def coloured(code: str, language: str) -> str:
    """Code as HTML, with the classes of Pygments where the language is known."""
    if not language or len(code) > LONGEST_COLOURED:
        return escape(code)
    try:
        lexer = get_lexer_by_name(language, stripnl=False)
    except ClassNotFound:
        return escape(code)
    coloured: str = highlight(code, lexer, HtmlFormatter(nowrap=True))
    return coloured


def copy_button(text: str, label: str) -> str:
    """A button that copies a text."""
    return button("copy", label, "copy", f'data-copy="{escape(text)}"')


def button(act: str, label: str, icon: str, more: str = "") -> str:
    """A small button with a picture; `page.js` hears it."""
    return (
        f'<button type="button" class="small" data-act="{act}" aria-label="{escape(label)}" '
        f'title="{escape(label)}" {more}>{ICONS[icon]}</button>'
    )


def _icon(paths: str) -> str:
    return (
        '<svg viewBox="0 0 24 24" width="16" height="16" fill="none" stroke="currentColor" stroke-width="1.8" '
        f'stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">{paths}</svg>'
    )


ICONS = {
    "copy": _icon('<rect x="9" y="9" width="11" height="11" rx="2"/><path d="M5 15V6a2 2 0 0 1 2-2h9"/>'),
    "again": _icon('<path d="M4 12a8 8 0 0 1 14-5l2 2"/><path d="M20 4v5h-5"/><path d="M20 12a8 8 0 0 1-14 5l-2-2"/>'
                   '<path d="M4 20v-5h5"/>'),
    "edit": _icon('<path d="M4 20h4L19 9l-4-4L4 16z"/><path d="M13 7l4 4"/>'),
}  # fmt: skip
