"""The program of the Web UI's process: `python -m modelcompose.clients.webui URL BASE_PATH HOST PORT`."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

POLITENESS = 10
SECONDS_BETWEEN_LOOKS = 0.05
"""How often Gradio looks for something to do; by itself, up to 1,000 times a second, which takes 7% of a core."""


def main() -> None:
    """Serve the page until this process is ended; what goes wrong is written to standard error."""
    url, base_path, host, port = sys.argv[1:]
    with suppress(OSError):
        os.nice(POLITENESS)  # the models' work comes first
    from .api import Server
    from .app import WebUI
    from .look import head, style, theme
    from .process import READY

    blocks = WebUI(Server(url, base_path)).blocks
    blocks.queue(api_open=False, default_concurrency_limit=None)
    queue = blocks._queue
    queue.sleep_when_free = queue.progress_update_sleep_when_free = SECONDS_BETWEEN_LOOKS
    blocks.launch(
        server_name=f"[{host}]" if ":" in host else host,
        server_port=int(port),
        prevent_thread_lock=True,
        share=False,
        quiet=True,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        max_file_size=1,  # nothing on the page takes files
        ssr_mode=False,
        theme=theme(),
        css=style(),
        head=head(),
    )
    print(READY, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
