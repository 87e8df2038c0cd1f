"""Opening the port, before anything slow begins, so that a port that is taken costs nobody a minute."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from ..adapters.errors import ConfigError

BACKLOG = 2048


@contextmanager
def listen(host: str, port: int, option: str = "--port") -> Iterator[list[socket.socket]]:
    """Listening sockets on every address of `host`, all on the same port; port 0 stands for any free one.

    Raises ConfigError, with what to do, if an address cannot be had; `option` is how another port is chosen.
    """
    with ExitStack() as opened:
        sockets: list[socket.socket] = []
        for family, address in _addresses(host, port):
            chosen = sockets[0].getsockname()[1] if sockets else port
            # asyncio sends small pieces at once (TCP_NODELAY) only on sockets that know their protocol.
            listener = opened.enter_context(socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
            _bind(listener, (address[0], chosen, *address[2:]), host, option)
            listener.listen(BACKLOG)
            listener.setblocking(False)
            sockets.append(listener)
        yield sockets


def url_of(host: str, sockets: Sequence[socket.socket]) -> str:
    """The URL that works on this machine, without a slash at its end."""
    port = sockets[0].getsockname()[1]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def is_loopback(sockets: Sequence[socket.socket]) -> bool:
    """Whether only this machine can reach them."""
    return all(ipaddress.ip_address(each.getsockname()[0].partition("%")[0]).is_loopback for each in sockets)


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int, *tuple[int, ...]]]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        raise ConfigError(f"this machine has no address '{host}'; try --host 127.0.0.1") from None
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))  # type: ignore[misc]


def _bind(listener: socket.socket, address: tuple[object, ...], host: str, option: str) -> None:
    if os.name == "posix":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        listener.bind(address)
    except OSError as error:
        raise ConfigError(_why_not(error, host, int(str(address[1])), option)) from None


def _why_not(error: OSError, host: str, port: int, option: str) -> str:
    if error.errno == errno.EADDRINUSE:
        other = port + 1 if port < 65535 else 8080
        return f"port {port} is taken by another program; choose another one: {option} {other}"
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights than this user has; choose one from 1024 up: {option} 8080"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this machine has no address '{host}'; try --host 127.0.0.1"
    return f"cannot listen on {host} port {port}: {error.strerror}"
