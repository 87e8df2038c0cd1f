"""A client that costs little: streams many answers at once over raw HTTP/1.1 and notes when their pieces come.

Runs in a process of its own: a `Plan` as JSON on standard input, a list of `Answer` on standard output. Imports nothing
but the standard library, so that it starts at once.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

PATH = "/v1/chat/completions"
TEXT = re.compile(rb'"(?:content|reasoning_content|reasoning|text)": ?"[^"]')
COUNT = re.compile(rb'"completion_tokens": ?(\d+)')
PROMPT_COUNT = re.compile(rb'"prompt_tokens": ?(\d+)')
CACHED = re.compile(rb'"cached_tokens": ?(\d+)')


@dataclass
class Ask:
    """One request: sent once every earlier one has had `after` pieces; its client leaves after `leaves` of them."""

    body: dict[str, Any]
    after: int = 0
    leaves: int | None = None


@dataclass
class Plan:
    """What to ask a server for, at most `at_once` at a time and `seconds` in all; `has_times` keeps every time."""

    port: int
    asks: list[Ask]
    seconds: float = 60.0
    at_once: int = 4096
    has_times: bool = False


@dataclass
class Answer:
    """What came: `sent`, `first` (the first text) and `last` in seconds on one clock; `pieces` are events with text.

    `tokens` is the server's own count, None if the answer was not whole.
    """

    status: int | None = None
    sent: float = 0.0
    first: float | None = None
    last: float = 0.0
    pieces: int = 0
    tokens: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    error: str | None = None
    times: list[float] = field(default_factory=list)

    @property
    def made(self) -> int:
        """Tokens of the answer so far."""
        return self.pieces if self.tokens is None else self.tokens


class Stream(asyncio.Protocol):
    """One request on a connection of its own."""

    def __init__(self, ask: Ask, has_times: bool, on_piece: asyncio.Event) -> None:
        self.answer = Answer()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ask = ask
        self._has_times = has_times
        self._on_piece = on_piece
        self._head = b""
        self._rest = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        body = json.dumps(self._ask.body).encode()
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.answer.sent = time.perf_counter()
        transport.write(head.encode() + b"connection: close\r\n\r\n" + body)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        answer = self.answer
        if answer.status is None:
            self._head += data
            if b"\r\n" not in self._head:
                return
            answer.status = int(self._head.split(None, 2)[1])
            data = self._head
        if answer.status != 200:
            self._rest = (self._rest + data)[:2000]
            return
        answer.last = now
        came = len(TEXT.findall(data))
        if came:
            if answer.first is None:
                answer.first = now
            answer.pieces += came
            if self._has_times:
                answer.times += [now] * came
            self._on_piece.set()
        # The end of an answer is short; what is left of the last piece may hold the first half of a field.
        self._rest = (self._rest + data)[-4000:]
        if self._ask.leaves is not None and answer.pieces >= self._ask.leaves:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        answer = self.answer
        if answer.status == 200 and (counts := COUNT.findall(self._rest)):
            answer.tokens = int(counts[-1])
            answer.prompt_tokens = _last(PROMPT_COUNT, self._rest)
            answer.cached_tokens = _last(CACHED, self._rest)
        elif answer.status != 200 or self._ask.leaves is None:
            answer.error = self._rest[-500:].decode(errors="replace") or f"the connection ended: {exc}"
        if not self.done.done():
            self.done.set_result(None)

    def leave(self) -> None:
        if (transport := getattr(self, "_transport", None)) is not None:
            transport.abort()


def _last(pattern: re.Pattern[bytes], text: bytes) -> int | None:
    found = pattern.findall(text)
    return int(found[-1]) if found else None


async def perform(plan: Plan) -> list[Answer]:
    """Ask for everything in the plan; what is not whole in time is left as it is."""
    streams: list[Stream] = []
    on_piece = asyncio.Event()
    slots = asyncio.Semaphore(plan.at_once)
    loop = asyncio.get_running_loop()

    def may_go(index: int, after: int) -> bool:
        return len(streams) >= index and all(
            each.done.done() or each.answer.pieces >= after for each in streams[:index]
        )

    async def one(index: int, ask: Ask) -> None:
        async with slots:
            while ask.after and not may_go(index, ask.after):
                on_piece.clear()
                await on_piece.wait()
            stream = Stream(ask, plan.has_times, on_piece)
            streams.append(stream)
            await loop.create_connection(lambda: stream, "127.0.0.1", plan.port)
            await stream.done

    tasks = [asyncio.create_task(one(index, ask)) for index, ask in enumerate(plan.asks)]
    _, pending = await asyncio.wait(tasks, timeout=plan.seconds)
    for task in pending:
        task.cancel()
    for stream in streams:
        if not stream.done.done():
            stream.leave()
    await asyncio.gather(*tasks, return_exceptions=True)
    return [stream.answer for stream in streams]


def run(plan: Plan) -> list[Answer]:
    """Perform a plan in a process of its own; the answers are in the order in which they were sent."""
    done = subprocess.run(
        [sys.executable, "-S", __file__], input=json.dumps(asdict(plan)), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"the client failed:\n{done.stderr}")
    return [Answer(**each) for each in json.loads(done.stdout)]


def main() -> None:
    given = json.load(sys.stdin)
    plan = Plan(**{**given, "asks": [Ask(**ask) for ask in given["asks"]]})
    json.dump([asdict(answer) for answer in asyncio.run(perform(plan))], sys.stdout)


def rate(answers: Sequence[Answer]) -> float:
    """Tokens a second, from the first request to the last token."""
    return sum(each.made for each in answers) / (
        max(each.last for each in answers) - min(each.sent for each in answers)
    )


if __name__ == "__main__":
    main()
