"""Many streams at once, clients that leave, and characters that take several tokens."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import openai
from openai.types.chat import ChatCompletionMessageParam

if TYPE_CHECKING:
    from served import Served

SUBJECTS = (
    "blorvik", "quamtel", "zinfor", "dreppo", "glistam", "farvon", "mibbel", "trosk", "uldane", "wexin",
    "kopral", "nerbit", "sulfad", "yomper", "vandro", "pelkis", "hurdom", "jassek", "olbern", "cravun",
)  # fmt: skip
SECONDS_FOR_THE_NEWS = 0.01
SCRIPTS = "你好，世界！🌍👩‍👩‍👧 Grüße, здравствуй, नमस्ते"


def about(subject: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": f"Repeat: {subject}"}]


def streamed(client: openai.OpenAI, subject: str) -> str:
    stream = client.chat.completions.create(
        model="bundled", messages=about(subject), max_tokens=24, temperature=0, stream=True
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


def test_twenty_streams_at_once_say_what_each_says_alone(served: Served) -> None:
    client = served.client()
    with ThreadPoolExecutor(len(SUBJECTS)) as threads:
        together = dict(zip(SUBJECTS, threads.map(lambda subject: streamed(client, subject), SUBJECTS), strict=True))
    assert together == {subject: streamed(client, subject) for subject in SUBJECTS}
    assert sum(subject == said for subject, said in together.items()) >= 0.8 * len(SUBJECTS)


def test_characters_of_several_tokens_arrive_whole(served: Served) -> None:
    client = served.client()
    chunks = client.chat.completions.create(
        model="bundled",
        messages=[{"role": "user", "content": "Say it."}],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "text", "schema": {"type": "string", "enum": [SCRIPTS]}, "strict": False},
        },
        temperature=0,
        max_tokens=200,
        stream=True,
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert json.loads("".join(pieces)) == SCRIPTS
    assert len([piece for piece in pieces if piece]) > 5
    for piece in pieces:
        assert "\ufffd" not in piece
        piece.encode()


def leave_after(served: Served, tokens: int) -> tuple[int, float]:
    """Ask for a long answer and hang up after some tokens.

    How many tokens the engine made after those that arrived, and how many seconds each of those took.
    """
    before = served.count("generated_tokens")
    body = json.dumps(
        {"model": "bundled", "prompt": "Once upon a time", "max_tokens": 200, "ignore_eos": True, "stream": True}
    )
    request = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    received = b""
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
        connection.sendall(request.encode())
        received += connection.recv(65536)
        began = time.monotonic()
        while received.count(b"data: ") < tokens:
            received += connection.recv(65536)
        seconds = (time.monotonic() - began) / tokens
    while served.count("running"):
        time.sleep(0.01)
    return served.count("generated_tokens") - before - received.count(b"data: "), seconds


def test_a_client_that_leaves_stops_generation_within_two_tokens(served: Served) -> None:
    # What a busy machine adds shows least in the best of several; the news itself is given a few milliseconds.
    tries = [leave_after(served, 9) for _ in range(5)]
    assert min(tokens - SECONDS_FOR_THE_NEWS / max(each, 0.001) for tokens, each in tries) <= 2, tries
    assert served.count("cancelled") >= 5


def test_leaving_costs_the_others_nothing(served: Served) -> None:
    client = served.client()
    alone = streamed(client, "apples")
    with ThreadPoolExecutor(4) as threads:
        kept = [threads.submit(streamed, client, "apples") for _ in range(2)]
        left = [threads.submit(leave_after, served, 3) for _ in range(2)]
        assert [each.result() for each in kept] == [alone, alone]
        for each in left:
            each.result()
