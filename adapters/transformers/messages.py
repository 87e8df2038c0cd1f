"""What the server and an engine process say to each other: msgspec structs, in MessagePack, over one ZeroMQ pair.

    to the engine     Submit, Cancel
    from the engine   State while the model loads and when it is ready or has failed; then one Step a step

Settings (the hub token among them) go over the child's standard input as one line, `Launch`, so that no list of
processes shows them. Standard input then stays open: its end tells the child that its server is gone.
"""

from __future__ import annotations

import msgspec

from ..base import GenerationRequest, ModelCounters, ModelState
from ..errors import ErrorReport
from ..events import Event
from .settings import ModelSettings


class Launch(msgspec.Struct, frozen=True):
    """The child's first and only line of input; `server_key` is CURVE's public key where the address is not private.

    `memory_patience` is for how many seconds to wait if too little memory is free.
    """

    settings: ModelSettings
    address: str
    server_key: bytes | None = None
    memory_patience: float = 0.0


class Submit(msgspec.Struct, frozen=True, tag=True):
    """Answer this request; what comes of it carries `id`."""

    id: int
    request: GenerationRequest


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """Nobody waits for this request's answer any more."""

    id: int


class State(msgspec.Struct, frozen=True, tag=True):
    """How far the engine is; `context_length` in tokens comes with phase `ready`, `failure` with phase `failed`."""

    state: ModelState
    context_length: int | None = None
    failure: ErrorReport | None = None


class Failure(msgspec.Struct, frozen=True, tag=True):
    """A request's last outcome if it went wrong; a refusal, if it comes before `Accepted`."""

    report: ErrorReport


Outcome = Event | Failure


class Step(msgspec.Struct, frozen=True, tag=True):
    """What one step of the engine brought to all requests (id and outcome, in order), and the counters after it."""

    outcomes: list[tuple[int, Outcome]]
    counters: ModelCounters


ToEngine = Submit | Cancel
FromEngine = State | Step
