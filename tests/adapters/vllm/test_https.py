"""Upstream servers behind HTTPS, with a certificate that only these tests know."""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import aclosing
from pathlib import Path

import pytest
from scripted_upstream import NAME, Step, chunk, cut, event, hello, reached, stream, upstream

from modelcompose.adapters.base import GenerationRequest
from modelcompose.adapters.errors import ModelUnavailable
from modelcompose.adapters.events import TextDelta
from modelcompose.adapters.relay import RelayRequest

CERTIFICATE = Path(__file__).parents[2] / "loopback.pem"
CHAT = GenerationRequest(model=NAME, messages=({"role": "user", "content": "Hi"},))
STREAM = RelayRequest(model=NAME, route="chat/completions", body=b'{"model":"org/model","stream":true}', is_stream=True)


@pytest.fixture
def tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


@pytest.fixture
def is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))


@pytest.mark.usefixtures("is_trusted")
async def test_answers_and_streams_come_through_on_one_connection(tls: ssl.SSLContext) -> None:
    async with upstream(hello, tls=tls) as server, reached(server) as adapter:
        assert server.url.startswith("https://")
        texts = [event.text async for event in adapter.generate(CHAT) if isinstance(event, TextDelta)]
        assert "".join(texts) == "Hello"
        relayed = adapter.relay(STREAM)
        assert b"".join([piece async for piece in relayed.events()]).endswith(b"data: [DONE]\n\n")
        assert relayed.usage is not None
        assert server.connections <= 2


@pytest.mark.usefixtures("is_trusted")
async def test_a_large_event_comes_through(tls: ssl.SSLContext) -> None:
    large = chunk({"content": "x" * 10_000_000})
    steps = stream(large, chunk(finish="stop"), event("[DONE]"))
    async with upstream(steps, tls=tls) as server, reached(server) as adapter:
        got = b"".join([piece async for piece in adapter.relay(STREAM).events()])
        assert got.startswith(large)


@pytest.mark.usefixtures("is_trusted")
async def test_a_client_that_leaves_closes_the_connection_at_once(tls: ssl.SSLContext) -> None:
    endless: list[Step] = cut(stream(chunk({"content": "a"})), asyncio.Event())
    async with upstream(endless, tls=tls) as server, reached(server) as adapter:
        async with aclosing(adapter.relay(STREAM).events()) as pieces:
            while not await anext(pieces):
                pass
        left = time.perf_counter()
        (asked,) = server.asked
        await asyncio.wait_for(asked.is_over.wait(), 5)
        assert asked.left is not None
        assert asked.left - left < 1


async def test_a_certificate_that_is_not_trusted_is_said(tls: ssl.SSLContext) -> None:
    async with upstream(hello, tls=tls) as server, reached(server, model=NAME) as adapter:
        (card,) = adapter.cards()
        assert card.state.phase == "failed"
        assert "its certificate is not trusted (self-signed certificate)" in card.state.detail
        assert "SSL_CERT_FILE" in card.state.detail
        with pytest.raises(ModelUnavailable):
            _ = [event async for event in adapter.generate(CHAT)]
