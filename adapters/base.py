"""What a model is: the request that goes in, and the adapter that answers it with events.

    GenerationRequest  one chat or text-completion request, already valid in form
    Sampling           how tokens are chosen and when to stop
    Constraint         a form the answer must have
    Adapter            a way to reach one or more models
    LoadableAdapter    one whose models can be loaded and unloaded
    ModelCard          what an adapter says of a model: its name, its state, its counters

Messages and tools stay OpenAI-shaped dicts: the client, the chat template and vLLM all speak that shape. They are
validated where they come in (`server/decode.py`, `workflows/`) and normalised only where a prompt is made of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from .events import Event

Message = dict[str, Any]
Tool = dict[str, Any]
Prompt = str | tuple[int, ...]


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How tokens are chosen and when to stop; None leaves the choice to the model's own generation config.

    `max_tokens` counts new tokens, `max_length` prompt and new ones together; what does not fit into the context is
    refused, or, if `is_cut_to_fit`, cut to what does. `temperature` 0 is greedy, `top_k` 0 is
    off. `logit_bias` adds to the logits of token ids. Penalties are OpenAI's (`presence`, `frequency`: subtracted from
    the logits of tokens already generated) and Hugging Face's (`repetition`: a factor, on prompt tokens as well).
    """

    max_tokens: int | None = None
    max_length: int | None = None
    is_cut_to_fit: bool = False
    min_tokens: int = 0
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False


class JsonConstraint(msgspec.Struct, frozen=True, tag=True):
    """The answer is JSON; with a schema, JSON that fits it."""

    schema: dict[str, Any] | None = None


class RegexConstraint(msgspec.Struct, frozen=True, tag=True):
    """The whole answer matches a regular expression."""

    pattern: str


class ChoiceConstraint(msgspec.Struct, frozen=True, tag=True):
    """The answer is one of these texts."""

    choices: tuple[str, ...]


class GrammarConstraint(msgspec.Struct, frozen=True, tag=True):
    """The answer is a sentence of a Lark grammar."""

    grammar: str


Constraint = JsonConstraint | RegexConstraint | ChoiceConstraint | GrammarConstraint


class NamedTool(msgspec.Struct, frozen=True, tag=True):
    """The model must call this tool."""

    name: str


ToolChoice = Literal["none", "auto", "required"] | NamedTool


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request: `messages` (chat) or `prompts` (text completion, each a text or token ids), never both.

    `n` answers are given to every prompt; choice `prompt_index * n + k` is the k-th answer to a prompt. `logprobs` is
    None when not asked for, else how many of the likeliest tokens to report beside the chosen one. `echo` puts the
    prompt before the answer. `extra` holds the body's fields that this program does not know.
    """

    model: str
    messages: tuple[Message, ...] = ()
    prompts: tuple[Prompt, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    constraint: Constraint | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] = {}
    sampling: Sampling = Sampling()
    n: int = 1
    logprobs: int | None = None
    echo: bool = False
    extra: dict[str, Any] = {}

    @property
    def is_chat(self) -> bool:
        return bool(self.messages)


Phase = Literal["loading", "ready", "failed", "unloaded", "stopped"]


class ModelState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a model is doing: `detail` is a line for people, `progress` goes from 0 to 1 while it loads, if known.

    A model that is `unloaded` is loaded when it is wanted; `on_demand` says that it loads for that reason, so that
    requests wait for it. `lacks_memory` says that loading cannot go on before others give memory back.
    """

    phase: Phase
    detail: str = ""
    progress: float | None = None
    on_demand: bool = False
    lacks_memory: bool = False


class ModelCounters(msgspec.Struct, frozen=True, omit_defaults=True):
    """Counts since the model was first started; those of this moment come first.

    `running` and `waiting` are requests, `rows` the answers that are being generated, `kv_used` the taken share of the
    KV cache. `prompt_tokens` were computed, `cached_tokens` found in the cache. `preempted` answers were interrupted
    for want of memory.
    """

    running: int = 0
    waiting: int = 0
    rows: int = 0
    kv_used: float = 0.0
    requests: int = 0
    cancelled: int = 0
    preempted: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    steps: int = 0
    step_seconds: float = 0.0
    engine_starts: int = 0


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """A model as `/v1/models` and `/health` show it; `created` in Unix seconds, `context_length` in tokens if known."""

    id: str
    created: int
    owned_by: str = "model-compose"
    context_length: int | None = None
    state: ModelState = ModelState("ready")
    counters: ModelCounters = ModelCounters()


class Adapter(Protocol):
    """A way to reach models. It is opened by an async context manager and usable until that ends.

    `generate` raises what refuses the request before its first event (see `errors.py`); afterwards a failure is raised
    from the iterator. Closing the iterator cancels the request.
    """

    def cards(self) -> Sequence[ModelCard]:
        """The models behind this adapter as they are now."""
        ...

    def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
        """The events of the answer to `request`; see `events.py` for their order."""
        ...


@runtime_checkable
class LoadableAdapter(Adapter, Protocol):
    """An adapter whose models can be taken into memory, and out of it; both begin, and return at once."""

    def load(self, name: str) -> None:
        """Load a model unless it is loaded, also one that could not be before."""
        ...

    def unload(self, name: str) -> None:
        """Give a model's memory back as soon as nobody uses it; the next request loads it again."""
        ...
