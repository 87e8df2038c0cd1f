"""What the page looks like: a theme without anything from elsewhere, a style sheet, and a script."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

SCRIPT = "modelCompose"
"""The object that `page.js` makes."""

_WHOLE = (400, 700)
"""The weights in which Gradio's fonts have all letters."""

_HERE = Path(__file__).parent
_SUN = (
    '<svg viewBox="0 0 24 24" width="18" height="18" fill="none" stroke="currentColor" stroke-width="1.8" '
    'stroke-linecap="round" aria-hidden="true"><circle cx="12" cy="12" r="4"/><path d="M12 3v2M12 19v2M3 12h2M19 12h2'
    'M5.6 5.6 7 7M17 17l1.4 1.4M5.6 18.4 7 17M17 7l1.4-1.4"/></svg>'
)
HEADER = (
    '<header class="brand"><h1>model-compose</h1>'
    '<button type="button" class="small" aria-label="Light or dark" title="Light or dark" '
    f'onclick="modelCompose.toggleDark()">{_SUN}</button></header>'
)


def theme() -> gr.themes.Base:
    """Fonts of this package's own and of the system."""
    hue = gr.themes.Color(
        c50="#eef6f5", c100="#d8ebe8", c200="#b3d7d2", c300="#84bdb6", c400="#4f9d95", c500="#2f8179",
        c600="#206860", c700="#1b544e", c800="#184440", c900="#153936", c950="#0a211f",
    )  # fmt: skip
    return gr.themes.Base(
        primary_hue=hue,
        secondary_hue=hue,
        neutral_hue=gr.themes.colors.stone,
        font=[gr.themes.LocalFont("IBM Plex Sans", _WHOLE), "ui-sans-serif", "system-ui", "sans-serif"],
        font_mono=[gr.themes.LocalFont("IBM Plex Mono", _WHOLE), "ui-monospace", "monospace"],
        radius_size=gr.themes.sizes.radius_lg,
    )


def style() -> str:
    """The style sheet."""
    return (_HERE / "style.css").read_text(encoding="utf-8")


def head() -> str:
    """What goes into the page's head: the script, which has to be there before any component."""
    return f"<script>{(_HERE / 'page.js').read_text(encoding='utf-8')}</script>"
