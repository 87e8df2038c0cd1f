"""Finding out what answers at a URL, against small servers of other kinds."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from served import a_free_port

from modelcompose.adapters.base import ModelCard
from modelcompose.adapters.errors import ModelUnavailable, Unauthorized
from modelcompose.clients.reach import served_models, wait_until_ready

Answers = dict[str, tuple[int, str]]


@contextmanager
def answering(answers: Answers) -> Iterator[str]:
    """A server that answers each path as told, and everything else with 404; its URL, with `/v1`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, "<html>"))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()


class Seen:
    """Remembers what it was shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, str]] = []

    def update(self, cards: Sequence[ModelCard]) -> None:
        self.shown += [(card.id, card.state.phase) for card in cards]


def fine() -> None:
    """Nothing is known to be wrong."""


def health(state: str, detail: str = "") -> str:
    return f'{{"status": "x", "models": [{{"id": "m", "state": "{state}", "progress": null, "detail": "{detail}"}}]}}'


@pytest.mark.parametrize("body", ["<html>", "[]", '{"data": 5}', '{"data": [5]}', "{}"])
def test_a_server_of_another_kind_has_no_models(body: str) -> None:
    with answering({"/v1/models": (200, body)}) as url:
        assert served_models(url, None) is None


def test_the_names_of_the_models() -> None:
    with answering({"/v1/models": (200, '{"data": [{"id": "a/b"}, {"id": "c"}]}')}) as url:
        assert served_models(url, None) == ["a/b", "c"]


def test_nothing_answers() -> None:
    assert served_models(f"http://127.0.0.1:{a_free_port()}/v1", None) is None
    assert served_models("no url at all", None) is None


def test_a_server_that_wants_a_key_says_so() -> None:
    with answering({"/v1/models": (401, "{}")}) as url, pytest.raises(Unauthorized, match="--api-key"):
        served_models(url, None)


def test_a_server_that_does_not_tell_how_its_models_are_is_ready() -> None:
    seen = Seen()
    with answering({}) as url:
        wait_until_ready(url, "m", seen, fine)
    assert seen.shown == []


def test_it_waits_while_the_model_loads() -> None:
    seen = Seen()
    answers = {"/health": (503, health("loading"))}

    def then_ready() -> None:
        if seen.shown:
            answers["/health"] = (200, health("ready"))

    with answering(answers) as url:
        wait_until_ready(url, "m", seen, then_ready)
    assert seen.shown == [("m", "loading"), ("m", "ready")]


def test_a_model_that_failed_is_told_with_the_reason() -> None:
    with (
        answering({"/health": (503, health("failed", "too big"))}) as url,
        pytest.raises(ModelUnavailable, match="m cannot be served: too big"),
    ):
        wait_until_ready(url, "m", Seen(), fine)


def test_waiting_ends_when_it_is_known_to_be_pointless() -> None:
    def gone() -> None:
        raise ModelUnavailable("gone")

    with pytest.raises(ModelUnavailable, match="gone"):
        wait_until_ready(f"http://127.0.0.1:{a_free_port()}/v1", "m", Seen(), gone)
