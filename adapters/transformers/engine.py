"""The loop's inside: requests in, one step at a time, events out. No sockets, no processes.

A step gives every running sequence one token and reads some tokens of new prompts, all in one forward where the model
allows it. `intake.py` makes sequences of requests, `scheduler.py` says whose turn it is, `in_rows.py` or `in_turns.py`
computes, `sampling.py` chooses, `output.py` makes events of it.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from ..base import GenerationRequest, ModelCounters
from ..errors import ComposeError, InvalidRequest, ModelUnavailable
from ..events import Accepted, Event, FinishReason, Usage
from .computer import computer_for
from .intake import Intake
from .load import LoadedModel
from .memory import give_freed_memory_back
from .messages import Failure, Outcome
from .output import Logprob
from .pace import Pace
from .placement import is_out_of_memory
from .rows import row_length
from .sampling import choose
from .scheduler import Scheduler
from .sequences import Computed, Computer, Request, Sequence
from .settings import ModelSettings
from .tensors import on_device, rows_at

logger = logging.getLogger(__name__)

MASK_PATIENCE = 0.01
"""Seconds that a step waits for the masks of slow grammars; without them, their sequences pause."""

IDLE_PATIENCE = 0.2
"""Seconds that it waits where there is no other sequence."""


class Engine:
    """Answers requests to one model, several at a time.

    `add` and `cancel` take effect at the next `step`, which returns what became of whom: `Accepted` or a `Failure`
    first, then the answer's events, ending in `Usage` or a `Failure`. `computer` is the best one there is if left out.
    """

    def __init__(self, loaded: LoadedModel, settings: ModelSettings, computer: Computer | None = None) -> None:
        self._loaded = loaded
        self._computer = computer or computer_for(loaded, settings)
        self._scheduler = Scheduler(
            settings.max_concurrent_count,
            self._computer.memory_tokens,
            row_length,
            can_chunk=self._computer.can_chunk,
        )
        self.context_length = self._longest()
        self._intake = Intake(loaded, self.context_length)
        self._pace = Pace(loaded.device, settings.max_batch_tokens)
        self._requests: dict[int, Request] = {}
        self._outcomes: list[tuple[int, Outcome]] = []
        self._counts = Counts()

    @property
    def is_idle(self) -> bool:
        return not self._requests and not self._outcomes

    def rest(self) -> None:
        """Use the time: give memory back that is kept for the next step, and get ready for a first grammar."""
        self._computer.rest()
        self._intake.get_ready()
        give_freed_memory_back()

    @property
    def counters(self) -> ModelCounters:
        running = sum(request.is_running for request in self._requests.values())
        memory = self._computer.memory_tokens
        return ModelCounters(
            running=running,
            waiting=len(self._requests) - running,
            rows=len(self._scheduler.running),
            kv_used=self._scheduler.held_tokens / memory if memory else 0.0,
            **vars(self._counts),
        )

    @torch.inference_mode()
    def add(self, id: int, request: GenerationRequest) -> None:
        """Queue a request, or refuse it."""
        try:
            self._requests[id] = accepted = self._intake(id, request)
        except Exception as error:  # one request's fault must not become everybody's
            self._fail(id, error)
            return
        self._counts.requests += 1
        for sequence in accepted.sequences:
            self._scheduler.add(sequence)
        self._outcomes.append((id, Accepted()))

    @torch.inference_mode()
    def cancel(self, id: int) -> None:
        """Forget a request; one that is over already is no error."""
        if id in self._requests:
            self._counts.cancelled += 1
            self._drop(id)

    @torch.inference_mode()
    def step(self) -> list[tuple[int, Outcome]]:
        """One token for every running sequence, and a piece of the prompts that are still to be read."""
        self._admit()
        running = list(self._scheduler.running)
        pieces = list(self._scheduler.pieces(self._pace.budget(len(running)), self._begin))
        pieces = [piece for piece in pieces if piece.sequence.place is not None]
        if running or pieces:
            began = time.perf_counter()
            computed = self._computer.step(running, pieces)
            self._counts.prompt_tokens += sum(piece.length for piece in pieces if piece.sequence.generated == 0)
            self._take(computed)
            seconds = time.perf_counter() - began
            self._pace.note(len(running), sum(piece.length for piece in pieces), seconds)
            self._counts.steps += 1
            self._counts.step_seconds += seconds
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def _longest(self) -> int:
        """The most tokens that prompt and answer may have: the model's context, or what there is memory for."""
        context, memory = self._loaded.context_length, self._computer.memory_tokens
        if memory is None or row_length(context) <= memory:
            return context
        longest = 1 << (memory.bit_length() - 1)
        logger.warning("there is memory for %d of the %d tokens of context of %s", longest, context, self._loaded.name)
        return longest

    # What is computed

    def _admit(self) -> None:
        for sequence in self._scheduler.admit():
            sequence.request.is_running = True
            if sequence.limit == 0 and not sequence.scores_prompt:
                self._say(sequence, None, None)
        for sequence in self._scheduler.make_room():
            self._counts.preempted += 1
            self._release(sequence)

    def _begin(self, sequence: Sequence) -> None:
        """Give a sequence a cache, with what is known of its prompt."""
        sequence.prompt_logprobs.clear()
        try:
            self._computer.start(sequence)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._fail(sequence.request.id, error)
            return
        self._counts.cached_tokens += sequence.computed
        if sequence.generated == 0 and sequence.choice % sequence.request.request.n == 0:
            sequence.request.cached_tokens += sequence.computed

    def _take(self, computed: Computed) -> None:
        """New tokens for those that were computed, and for the other choices of prompts that were read."""
        for sequence, error in computed.failed:
            self._fail(sequence.request.id, error)
        for sequence, logits in computed.scores:
            self._score_prompt(sequence, logits)
        sequences, places = self._ready(*self._with_siblings(computed))
        if not sequences or computed.logits is None:
            return
        logits = rows_at(computed.logits, places)
        chosen = choose(logits, [sequence.sampler for sequence in sequences], self._computer.kernels)
        logprobs = self._logprobs(sequences, chosen, logits)
        for sequence, token, logprob in zip(sequences, chosen, logprobs, strict=True):
            if sequence.request.id not in self._requests:
                continue  # another of its choices failed
            try:
                self._say(sequence, token, logprob)
            except Exception as error:  # a request's own fault: its grammar, its processors, its parser
                self._fail(sequence.request.id, error)

    def _with_siblings(self, computed: Computed) -> tuple[list[Sequence], list[int]]:
        """The sequences that get a token, and the places of their logits."""
        sequences: list[Sequence] = []
        places: list[int] = []
        for place, sequence in enumerate(computed.sequences):
            if sequence.request.id not in self._requests:
                continue
            both = [sequence]
            if sequence in self._scheduler.reading:
                both += self._forked(sequence)
            for each in both:
                if each in self._scheduler.reading:
                    self._scheduler.run(each)
            sequences += both
            places += [place] * len(both)
        return sequences, places

    def _ready(self, sequences: list[Sequence], places: list[int]) -> tuple[list[Sequence], list[int]]:
        """Those whose grammars know what may come next; the others pause, and their last token is computed again."""
        slow = [sequence for sequence in sequences if not sequence.sampler.wait(0)]
        if not slow:
            return sequences, places
        if not self._computer.can_repeat:
            return sequences, places  # then their masks are waited for
        deadline = time.monotonic() + (MASK_PATIENCE if len(slow) < len(self._requests) else IDLE_PATIENCE)
        paused = [each for each in slow if not each.sampler.wait(max(0.0, deadline - time.monotonic()))]
        for sequence in paused:
            self._computer.repeat(sequence)
        ready = [(each, place) for each, place in zip(sequences, places, strict=True) if each not in paused]
        return [sequence for sequence, _ in ready], [place for _, place in ready]

    def _forked(self, sequence: Sequence) -> list[Sequence]:
        """The other choices of a prompt that was read, which start from the same cache."""
        forked = []
        for other in list(self._scheduler.reading):
            if other.prompt is sequence.prompt and other.place is None and other.generated == sequence.generated == 0:
                try:
                    self._computer.fork(sequence, other)
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    self._fail(sequence.request.id, error)
                    return []
                other.prompt_logprobs = sequence.prompt_logprobs
                forked.append(other)
        return forked

    def _score_prompt(self, sequence: Sequence, logits: Tensor) -> None:
        """Note how likely the prompt's tokens were; `logits` are those after the tokens computed last."""
        first = sequence.computed - len(logits) + 1
        targets = sequence.tokens[first : first + len(logits)]
        if first == 1:
            sequence.prompt_logprobs.append(Logprob(None))
        sequence.prompt_logprobs += logprobs_of(logits[: len(targets)], targets, sequence.request.request.logprobs or 0)

    def _logprobs(
        self, sequences: list[Sequence], chosen: list[int | Exception], logits: Tensor
    ) -> list[Logprob | None]:
        """How likely the chosen tokens were, for those whose requests ask."""
        found: list[Logprob | None] = [None] * len(sequences)
        asked = {
            place: (token, sequence.request.request.logprobs)
            for place, (sequence, token) in enumerate(zip(sequences, chosen, strict=True))
            if sequence.request.request.logprobs is not None and isinstance(token, int)
        }
        if asked:
            most = max(top or 0 for _, top in asked.values())
            rows = rows_at(logits, list(asked))
            for place, logprob in zip(asked, logprobs_of(rows, [t for t, _ in asked.values()], most), strict=True):
                found[place] = Logprob(logprob.logprob, logprob.top[: asked[place][1]])
        return found

    def _say(self, sequence: Sequence, token: int | Exception | None, logprob: Logprob | None) -> None:
        """Add a token to a sequence (None: there is to be none) and say what comes of it."""
        if isinstance(token, Exception):
            raise token
        request = sequence.request.request
        if sequence.generated == 0 and request.echo:
            self._emit(sequence, sequence.output.echo(sequence.prompt_logprobs))
        if sequence.limit == 0 or token is None:
            self._finish(sequence, "length")
            return
        sequence.sampler.note(token)
        sequence.tokens.append(token)
        sequence.generated += 1
        self._counts.generated_tokens += 1
        if token in request.sampling.stop_token_ids or (
            token in self._loaded.eos_token_ids and not request.sampling.ignore_eos
        ):
            self._finish(sequence, "stop")
            return
        self._emit(sequence, sequence.output.feed(token, logprob))
        if sequence.output.stopped:
            self._finish(sequence, "stop")
        elif sequence.generated >= sequence.limit:
            self._finish(sequence, "length")

    # What goes out

    def _emit(self, sequence: Sequence, events: list[Event]) -> None:
        id = sequence.request.id
        self._outcomes.extend((id, event) for event in events)

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        self._emit(sequence, sequence.output.finish(reason))
        self._scheduler.remove(sequence)
        self._release(sequence)
        request = sequence.request
        request.completion_tokens += sequence.generated
        request.reasoning_tokens += sequence.output.reasoning_tokens
        request.sequences.remove(sequence)
        if not request.sequences:
            usage = Usage(
                request.prompt_tokens, request.completion_tokens, request.cached_tokens, request.reasoning_tokens
            )
            self._outcomes.append((request.id, usage))
            self._drop(request.id)

    def _fail(self, id: int, error: Exception) -> None:
        self._drop(id)
        if is_out_of_memory(error):
            logger.warning("request %d: out of memory: %s", id, error)
            error = ModelUnavailable(
                "there is not enough memory left for this request; try a shorter one", retry_after=5
            )
        elif isinstance(error, RecursionError):
            error = InvalidRequest("the request is nested too deeply")
        elif not isinstance(error, ComposeError):
            logger.error("request %d failed", id, exc_info=error)
            error = ComposeError(f"the engine failed on this request; the server's log says how under 'request {id}'")
        self._outcomes.append((id, Failure(error.report())))

    def _drop(self, id: int) -> None:
        """Forget a request and what it holds."""
        if (request := self._requests.pop(id, None)) is not None:
            for sequence in request.sequences:
                self._scheduler.remove(sequence)
                self._release(sequence)
                sequence.sampler.drop()

    def _release(self, sequence: Sequence) -> None:
        """Give up a sequence's cache; what it has said is kept."""
        if sequence.place is not None:
            self._computer.release(sequence)


@dataclass
class Counts:
    """What `ModelCounters` has of an engine that only grows."""

    requests: int = 0
    cancelled: int = 0
    preempted: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    steps: int = 0
    step_seconds: float = 0.0


def logprobs_of(logits: Tensor, tokens: list[int], top: int) -> list[Logprob]:
    """How likely each token was under its row of the model's `logits` `[tokens, vocabulary]`, and the `top` best."""
    logprobs = logits.float().log_softmax(-1)
    chosen = logprobs.gather(-1, on_device(tokens, logits.device)[:, None])[:, 0].tolist()
    if not top:
        return [Logprob(logprob) for logprob in chosen]
    best = logprobs.topk(min(top, logprobs.shape[-1]))
    rows = zip(chosen, best.indices.tolist(), best.values.tolist(), strict=True)
    return [Logprob(logprob, tuple(zip(ids, values, strict=True))) for logprob, ids, values in rows]
