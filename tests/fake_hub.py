"""A Hugging Face hub on loopback: the few endpoints that huggingface_hub asks when it downloads a snapshot."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REFUSALS = {
    "missing": (401, "RepoNotFound", "Repository not found"),
    "gated": (403, "GatedRepo", "Access to this model is restricted"),
    "private": (401, "", "Invalid username or password."),
    "broken": (500, "", "Internal Error"),
}


class FakeHub:
    """Repositories by name, each a folder of files; `refusals` names those that are refused and how.

    `cut_after` is the number of bytes after which every large file's connection is dropped; `delay` are the seconds
    between two kilobytes.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Path] = {}
        self.refusals: dict[str, str] = {}
        self.cut_after: int | None = None
        self.delay = 0.0
        self.downloads: list[str] = []
        self.tokens: list[str | None] = []
        hub = self

        class Handler(_Handler):
            def __init__(self, *args: object) -> None:
                self.hub = hub
                super().__init__(*args)  # type: ignore[arg-type]

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        authorization = self.headers.get("authorization")
        self.hub.tokens.append(authorization)
        path = unquote(urlsplit(self.path).path).strip("/")
        for prefix, answer in (("api/models/", self._api), ("", self._file)):
            if path.startswith(prefix):
                answer(path.removeprefix(prefix), with_body)
                return

    def _api(self, path: str, with_body: bool) -> None:
        for name, folder in self.hub.repositories.items():
            if path == name or path.startswith(f"{name}/"):
                if self._refused(name):
                    return
                kind, _, revision = path.removeprefix(name).strip("/").partition("/")
                if revision not in ("", "main", COMMIT):
                    self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
                elif kind == "tree":
                    self._json(list(_tree(folder)))
                else:
                    self._json({"_id": name, "id": name, "modelId": name, "sha": COMMIT, "siblings": []})
                return
        self._refuse("missing")

    def _file(self, path: str, with_body: bool) -> None:
        name, _, rest = path.partition("/resolve/")
        filename = rest.partition("/")[2]
        folder = self.hub.repositories.get(name)
        if folder is None or self._refused(name):
            return
        file = folder / filename
        if not file.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        content = file.read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        if with_body:
            self.hub.downloads.append(filename)
        self._send(200, content, {"ETag": etag, "X-Repo-Commit": COMMIT}, with_body=with_body)

    def _refused(self, name: str) -> bool:
        kind = self.hub.refusals.get(name)
        if kind is not None:
            self._refuse(kind)
        return kind is not None

    def _refuse(self, kind: str) -> None:
        status, code, message = REFUSALS[kind]
        body = json.dumps({"error": message}).encode()
        self._send(status, body, {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {}))

    def _json(self, body: object) -> None:
        self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, with_body: bool = True) -> None:
        start = 0
        if (wanted := self.headers.get("range")) is not None and status == 200:
            start = int(wanted.removeprefix("bytes=").split("-")[0] or 0)
            status = 206
            headers = {**headers, "Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        if not with_body or self.command == "HEAD":
            return
        cut = self.hub.cut_after
        if cut is not None and len(body) > cut:
            self.wfile.write(body[start : start + cut])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        for place in range(start, len(body), 1024 if self.hub.delay else len(body)):
            self.wfile.write(body[place : place + 1024] if self.hub.delay else body[start:])
            time.sleep(self.hub.delay)


def _tree(folder: Path) -> Iterator[dict[str, object]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            entry = {"type": "file", "oid": hashlib.sha1(content).hexdigest(), "size": len(content)}
            yield {**entry, "path": path.relative_to(folder).as_posix()}


@contextmanager
def hub_environment(url: str) -> Iterator[None]:
    """huggingface_hub asks `url` inside this block; it reads its environment only once, so its constants are set."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    before = constants.ENDPOINT, constants.HUGGINGFACE_CO_URL_TEMPLATE
    constants.ENDPOINT = url
    constants.HUGGINGFACE_CO_URL_TEMPLATE = url + "/{repo_id}/resolve/{revision}/{filename}"
    _http.close_session()
    try:
        yield
    finally:
        constants.ENDPOINT, constants.HUGGINGFACE_CO_URL_TEMPLATE = before
        _http.close_session()
