"""The program of the Web UI's process: `python -m modelcompose.clients.webui URL BASE_PATH HOST PORT`."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

POLITENESS = 10


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
