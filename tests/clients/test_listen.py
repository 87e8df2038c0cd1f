"""Opening the port."""

from __future__ import annotations

import asyncio
import socket

import pytest

from modelcompose.adapters.errors import ConfigError
from modelcompose.clients.listen import is_loopback, listen, url_of


def test_port_zero_is_any_free_port_and_the_url_names_it() -> None:
    with listen("127.0.0.1", 0) as sockets:
        port = sockets[0].getsockname()[1]
        assert port > 0
        assert url_of("127.0.0.1", sockets) == f"http://127.0.0.1:{port}"
        assert is_loopback(sockets)


def test_a_client_can_connect_before_anything_answers() -> None:
    with listen("127.0.0.1", 0) as sockets, socket.create_connection(sockets[0].getsockname(), timeout=5):
        pass


def test_every_address_of_a_name_gets_the_same_port() -> None:
    with listen("localhost", 0) as sockets:
        assert len({each.getsockname()[1] for each in sockets}) == 1
        assert is_loopback(sockets)


def test_all_of_a_machines_addresses_are_not_loopback_and_the_url_still_works_here() -> None:
    with listen("0.0.0.0", 0) as sockets:
        assert not is_loopback(sockets)
        assert url_of("0.0.0.0", sockets).startswith("http://127.0.0.1:")


def test_a_taken_port_is_named_with_another_to_try() -> None:
    with listen("127.0.0.1", 0) as sockets:
        port = sockets[0].getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is taken.*--port"), listen("127.0.0.1", port):
            pass


def test_a_foreign_address_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no address '192\.0\.2\.1'"), listen("192.0.2.1", 0):
        pass


def test_a_port_is_free_again_afterwards() -> None:
    with listen("127.0.0.1", 0) as sockets:
        port = sockets[0].getsockname()[1]
    with listen("127.0.0.1", port):
        pass


async def test_small_pieces_of_an_answer_are_sent_at_once() -> None:
    accepted = asyncio.get_running_loop().create_future()

    class Connection(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.set_result(transport.get_extra_info("socket"))

    with listen("127.0.0.1", 0) as (listener,):
        server = await asyncio.get_running_loop().create_server(Connection, sock=listener)
        _, writer = await asyncio.open_connection(*listener.getsockname())
        assert (await accepted).getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        writer.close()
        server.close()
