"""Whether a server on this machine is there, and whether it answers."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack

import httpx2
import psutil

from ..errors import ConfigError

SECONDS_FOR_AN_ANSWER = 5.0
_SIGNS = ("/health", "/v1/models")


async def is_ready(client: httpx2.AsyncClient, url: str) -> bool:
    """Whether a server answers, and says neither at `/health` nor at `/v1/models` that it cannot work yet.

    A server that has no such routes, or wants a key for them, is ready when it answers at all.
    """
    for path in _SIGNS:
        try:
            response = await client.get(url + path, timeout=SECONDS_FOR_AN_ANSWER)
        except httpx2.HTTPError:
            return False
        if response.is_server_error:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens at now, each another one."""
    with ExitStack() as opened:
        probes = [opened.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def check_port(name: str, port: int) -> None:
    """Raises ConfigError if somebody listens at `port`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(
                    f"{name}: port {port} is taken{_holder(port)}; stop that program, or choose another `port` here "
                    "and in the start command"
                ) from error
            raise ConfigError(f"{name}: port {port} cannot be used: {error.strerror}") from error


def _holder(port: int) -> str:
    """Who listens there, as far as this user may know."""
    try:
        found = [
            each.pid
            for each in psutil.net_connections("tcp")
            if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port and each.pid
        ]
        return f" by {psutil.Process(found[0]).name()} (process {found[0]})" if found else ""
    except psutil.Error:
        return ""
