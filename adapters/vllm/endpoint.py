"""One upstream server: where it is, and the connections to it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from urllib.parse import urlsplit

from ...adapters.errors import ConfigError
from .connection import Connection, Patience
from .troubles import Broken, Unreachable

SECONDS_FREE = 60.0
"""A connection that was unused for so long is not used again; something between may have forgotten it."""


class Endpoint:
    """A server by its base URL as OpenAI's clients take it, `http://host:port/v1`; without a path, `/v1` is meant.

    Raises ConfigError for what is no such URL.
    """

    def __init__(self, base_url: str, api_key: str | None = None, patience: Patience | None = None) -> None:
        self.url = base_url.rstrip("/")
        parts = urlsplit(self.url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.query or parts.fragment:
            raise ConfigError(f"'{base_url}' is no base URL; write http://host:port/v1 or https://...")
        self._host = parts.hostname
        self._is_secure = parts.scheme == "https"
        self._port = port or (443 if self._is_secure else 80)
        self._patience = patience or Patience()
        self.prefix = parts.path or "/v1"
        self._root = self.prefix.removesuffix("/v1")
        host = f"[{self._host}]" if ":" in self._host else self._host
        lines = [f"host: {host}" if port is None else f"host: {host}:{port}"]
        lines += [f"authorization: Bearer {api_key}"] if api_key else []
        self._always = "".join(f"{line}\r\n" for line in lines).encode("latin-1")
        self._context: ssl.SSLContext | None = None
        self._posts: dict[str, bytes] = {}
        self._free: list[Connection] = []
        self._open: set[Connection] = set()
        self._is_closed = False

    def post(self, route: str, body: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
        """The bytes of a request with a JSON body to a route of OpenAI's, or with a slash to one above those."""
        head = self._posts.get(route)
        if head is None:
            head = f"POST {self._path(route)} HTTP/1.1\r\n".encode() + self._always
            head = self._posts[route] = head + b"content-type: application/json\r\n"
        more = b"".join([b"%b: %b\r\n" % header for header in headers]) if headers else b""
        return b"%b%bcontent-length: %d\r\n\r\n%b" % (head, more, len(body), body)

    def get(self, path: str) -> bytes:
        """The bytes of a request for `models`, a route of OpenAI's, or for `/health`, which is above those."""
        return b"GET %b HTTP/1.1\r\n%baccept: application/json\r\n\r\n" % (self._path(path).encode(), self._always)

    def _path(self, route: str) -> str:
        return self._root + route if route.startswith("/") else f"{self.prefix}/{route}"

    async def ask(self, request: bytes) -> Connection:
        """The connection on which `request` was sent and the head of its answer has come; raises Trouble.

        Whoever asks calls `leave` in the end, which ends a connection whose answer is not complete: that tells the
        server to stop.
        """
        connection = self._used()
        if connection is not None:
            try:
                return await connection.ask(request)
            except Broken:
                # The server had closed it when it was asked, as servers do with connections nobody uses.
                if connection.has_heard:
                    raise
        return await (await self._connected()).ask(request)

    def close(self) -> None:
        """End all connections, and make no more."""
        self._is_closed = True
        for connection in list(self._open):
            connection.close()

    def _used(self) -> Connection | None:
        now = asyncio.get_running_loop().time()
        while self._free:
            connection = self._free.pop()
            if connection.is_open and now - connection.free_since < SECONDS_FREE:
                return connection
            connection.close()
        return None

    async def _connected(self) -> Connection:
        if self._is_closed:
            raise Unreachable("it is used no more")
        loop = asyncio.get_running_loop()
        if self._is_secure and self._context is None:
            self._context = ssl.create_default_context()
        try:
            async with asyncio.timeout(self._patience.connect):
                _, connection = await loop.create_connection(
                    lambda: Connection(self._patience, self._free.append, self._forget),
                    self._host,
                    self._port,
                    ssl=self._context,
                    happy_eyeballs_delay=0.25,
                )
        except TimeoutError as error:
            raise Unreachable(f"no connection after {self._patience.connect:g} seconds") from error
        except ssl.SSLCertVerificationError as error:
            raise Unreachable(
                f"its certificate is not trusted ({error.verify_message}); "
                "the environment variable SSL_CERT_FILE names a file of those that are"
            ) from error
        except OSError as error:
            raise Unreachable(error.strerror or str(error) or type(error).__name__) from error
        self._open.add(connection)
        return connection

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
