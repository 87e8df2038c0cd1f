"""A model that says what it is told to: the adapter that server and workflow tests run on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

from modelcompose.adapters.base import GenerationRequest, ModelCard
from modelcompose.adapters.events import Event, Finish, TextDelta, Usage

Step = Event | float | asyncio.Event | Exception
"""An event to send, seconds to wait, something to wait for, or an error to raise."""

Script = Iterable[Step] | Callable[[GenerationRequest], Iterable[Step]]


def says(*pieces: str, prompt_tokens: int = 3) -> list[Step]:
    """The script of a model that answers with these pieces, one token each."""
    return [*(TextDelta(piece) for piece in pieces), Finish("stop"), Usage(prompt_tokens, len(pieces))]


class ScriptedAdapter:
    """Answers every request to a model with that model's script; remembers the requests and which were closed early."""

    def __init__(self, scripts: Mapping[str, Script], cards: Sequence[ModelCard] | None = None) -> None:
        self.scripts = dict(scripts)
        self.requests: list[GenerationRequest] = []
        self.closed_early = 0
        self._cards = cards

    def cards(self) -> Sequence[ModelCard]:
        return self._cards or [ModelCard(id=name, created=1_700_000_000) for name in self.scripts]

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
        self.requests.append(request)
        script = self.scripts[request.model]
        done = False
        try:
            for step in script(request) if callable(script) else script:
                match step:
                    case float():
                        await asyncio.sleep(step)
                    case asyncio.Event():
                        await step.wait()
                    case Exception():
                        raise step
                    case _:
                        yield step
            done = True
        finally:
            self.closed_early += not done
