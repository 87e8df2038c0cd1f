"""Models of servers that speak OpenAI's API: told of as events, or relayed as they come."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from types import TracebackType
from typing import Self

import msgspec

from ..base import GenerationRequest, ModelCard, ModelCounters, ModelState
from ..errors import InvalidRequest, ModelNotFound, ModelUnavailable
from ..events import Accepted, Event, Usage
from ..relay import RelayRequest, Route
from .body import body_of
from .decode import StreamDecoder
from .limits import TOKENIZE, limited
from .pool import Asking, Pool
from .relay import StreamRelay, whole_answer
from .replica import UpstreamModel
from .settings import UpstreamSettings

NO_SERVER = ModelState("loading", "its server is not there yet")


class UpstreamAdapter:
    """The models of several servers that have the same ones, or of a single server.

    Entering the context starts to look at the servers and returns at once; `ready` waits until they have answered.
    `waiting` is what the models are doing while there is no server (`pool.add`) for them yet.
    """

    def __init__(self, settings: UpstreamSettings, waiting: Callable[[], ModelState] = lambda: NO_SERVER) -> None:
        self._settings = settings
        self._created = int(time.time())
        self._counts: defaultdict[str, Counts] = defaultdict(Counts)
        self._known: dict[str, UpstreamModel] = {}
        own = {} if settings.model is None else {settings.name or settings.model: settings.model}
        self._given = own | settings.aliases
        self.pool = Pool(settings)
        self._waiting = waiting

    async def __aenter__(self) -> Self:
        await self.pool.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.pool.__aexit__(kind, error, traceback)

    async def ready(self) -> None:
        """Wait until every server was looked at; raises ModelUnavailable if there is no model to be had."""
        await self.pool.known()
        cards = self.cards()
        if not any(card.state.phase == "ready" for card in cards):
            raise ModelUnavailable(cards[0].state.detail if cards else self._condition(None).detail)

    # Models

    def cards(self) -> Sequence[ModelCard]:
        """The models under the names they have here, as they are now."""
        return [self._card(name, model) for name, model in self._names().items()]

    def has(self, name: str) -> bool:
        """See `RelayingAdapter`."""
        return name in self._given or name in self._known or name in self._names()

    def _names(self) -> dict[str, str]:
        """The servers' names of the models, by the names they have here."""
        if self._settings.model is not None:
            return self._given
        # A model that was there once is known for good, so that it is found while its server is away.
        self._known |= {id: model for replica in self.pool.replicas for id, model in replica.models.items()}
        return {id: id for id in self._known} | self._given

    def _card(self, name: str, model: str) -> ModelCard:
        found = self._found(model)
        counters = self._counts[name].counters()
        state = self._condition(model)
        if found is None:
            return ModelCard(id=name, created=self._created, state=state, counters=counters)
        return ModelCard(
            id=name,
            created=found.created or self._created,
            owned_by=found.owned_by or "vllm",
            context_length=found.max_model_len,
            state=state,
            counters=counters,
        )

    def _found(self, model: str) -> UpstreamModel | None:
        return next((replica.models[model] for replica in self.pool.replicas if model in replica.models), None)

    def _context(self, model: str) -> int | None:
        found = self._found(model)
        return None if found is None else found.max_model_len

    def _condition(self, model: str | None) -> ModelState:
        """What a model's servers do, all of them together."""
        replicas = self.pool.replicas
        if not replicas:
            return self._waiting()
        up = [replica for replica in replicas if replica.condition == "up"]
        having = [replica for replica in up if model in replica.models]
        if having:
            return ModelState("ready", "" if len(replicas) == 1 else f"{len(having)} of {len(replicas)} servers")
        if any(replica.condition == "unknown" for replica in replicas):
            return ModelState("loading", f"looking for {replicas[0].url}")
        if up:
            there = ", ".join(sorted(up[0].models)[:20]) or "none"
            return ModelState("failed", f"{up[0].url} has no model '{model}'; it has: {there}")
        return ModelState("failed", f"{replicas[0].url} does not answer: {replicas[0].reason}")

    def _upstream_name(self, name: str) -> str:
        if not self.has(name):
            raise ModelNotFound(f"no model '{name}' here", param="model")
        if not self.pool.replicas:
            raise ModelUnavailable(f"{name} is not available: {self._waiting().detail}", retry_after=5)
        return self._given.get(name, name)

    # Answers

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """The answer's events, `Accepted` first; raises what `Pool.pieces` does, and UnsupportedParameter."""
        model = self._upstream_name(request.model)
        request = await limited(request, model, self._context(model), partial(self._count, model))
        route: Route = "chat/completions" if request.is_chat else "completions"
        asking = Asking(model=model, route=route, body=body_of(request, model), is_stream=True)
        decoder = StreamDecoder(request.n * max(1, len(request.prompts)), is_chat=request.is_chat)
        with _Counting(self._counts[request.model]) as counting:
            is_accepted = False
            async with aclosing(self.pool.pieces(asking)) as pieces:
                async for piece in pieces:
                    if not is_accepted:
                        is_accepted = True
                        yield Accepted()
                    for event in decoder.feed(piece):
                        if isinstance(event, Usage):
                            counting.complete(event)
                        yield event
            for event in decoder.finish():
                if isinstance(event, Usage):
                    counting.complete(event)
                yield event

    async def _count(self, model: str, body: bytes) -> bytes:
        return await self.pool.whole(Asking(model=model, route=TOKENIZE, body=body, is_stream=False))

    def relay(self, request: RelayRequest) -> RelayedAnswer:
        """The answer to a request that is handed on as it is; raises ModelNotFound, ModelUnavailable."""
        model = self._upstream_name(request.model)
        body = request.body if model == request.model else renamed(request.body, model)
        asking = Asking(
            model=model, route=request.route, body=body, is_stream=request.is_stream, headers=request.headers
        )
        return RelayedAnswer(self.pool, asking, request.model, self._counts[request.model])


class RelayedAnswer:
    """An answer on its way from a server to a client that calls the model `name`."""

    def __init__(self, pool: Pool, asking: Asking, name: str, counts: Counts) -> None:
        self._pool = pool
        self._asking = asking
        self._new_name = None if name == asking.model else name
        self._counts = counts
        self.usage: Usage | None = None

    async def whole(self) -> bytes:
        """See `Relayed`."""
        with _Counting(self._counts) as counting:
            body = await self._pool.whole(self._asking)
            answer, self.usage = whole_answer(body, self._new_name)
            counting.complete(self.usage)
            return answer

    async def events(self) -> AsyncGenerator[bytes, None]:
        """See `Relayed`."""
        relay = StreamRelay(self._new_name)
        with _Counting(self._counts) as counting:
            async with aclosing(self._pool.pieces(self._asking)) as pieces:
                async for piece in pieces:
                    if not piece:
                        yield b""
                    elif events := relay.feed(piece):
                        yield events
                    if relay.failure is not None:
                        raise relay.failure
            if end := relay.finish():
                yield end
            self.usage = relay.usage
            counting.complete(self.usage)


class Counts:
    """What was counted of one model so far; see ModelCounters."""

    def __init__(self) -> None:
        self.running = 0
        self.requests = 0
        self.cancelled = 0
        self.prompt_tokens = 0
        self.generated_tokens = 0

    def counters(self) -> ModelCounters:
        """The counts as they are now."""
        return ModelCounters(**vars(self))


class _Counting:
    """Counts one request to a model while it lasts."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._is_complete = False

    def __enter__(self) -> Self:
        self._counts.requests += 1
        self._counts.running += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._counts.running -= 1
        self._counts.cancelled += not self._is_complete and not isinstance(error, Exception)

    def complete(self, usage: Usage | None) -> None:
        """The answer is there, and has taken so many tokens."""
        self._is_complete = True
        if usage is not None:
            self._counts.prompt_tokens += usage.prompt_tokens
            self._counts.generated_tokens += usage.completion_tokens


def renamed(body: bytes, model: str) -> bytes:
    """A request with another model's name in it and everything else as it was."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest("The body of the request must be a JSON object.") from error
    return msgspec.json.encode(fields | {"model": msgspec.Raw(msgspec.json.encode(model))})
