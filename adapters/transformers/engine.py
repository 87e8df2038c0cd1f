"""The loop's inside: requests in, one step at a time, events out. No sockets, no processes.

A step gives every running sequence one token, then reads some tokens of new prompts. `forward.py` computes,
`sampling.py` chooses, `output.py` makes events of it, `scheduler.py` says whose turn it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..base import GenerationRequest, ModelCounters, Sampling
from ..errors import ComposeError, ContextLengthExceeded, InvalidRequest, ModelUnavailable, UnsupportedParameter
from ..events import Accepted, Event, FinishReason, Usage
from .forward import Forward, decoder_start
from .grammar import GrammarCompiler
from .load import LoadedModel
from .messages import Failure, Outcome
from .output import ChoiceOutput, Logprob
from .processors import ModelProcessors
from .prompt import EncodedPrompt, PromptBuilder
from .sampling import Sampler, with_defaults
from .scheduler import Request, Scheduler, Sequence

logger = logging.getLogger(__name__)

PROMPT_BUDGET = {"cpu": 256, "mps": 512}
"""Prompt tokens a step, so that running answers are not held up for long; a GPU is done with 2048 as fast."""


class Engine:
    """Answers requests to one model, several at a time.

    `add` and `cancel` take effect at the next `step`, which returns what became of whom: `Accepted` or a `Failure`
    first, then the answer's events, ending in `Usage` or a `Failure`.
    """

    def __init__(self, loaded: LoadedModel, max_running: int) -> None:
        self._loaded = loaded
        self._forward = Forward(loaded)
        self._prompts = PromptBuilder(loaded)
        self._grammars = GrammarCompiler(loaded)
        self._processors = ModelProcessors(loaded)
        self._starts = decoder_start(loaded) if loaded.is_encoder_decoder else []
        budget = PROMPT_BUDGET.get(loaded.device.type, 2048) if self._forward.can_chunk else None
        self._scheduler = Scheduler(max_running, budget)
        self._requests: dict[int, Request] = {}
        self._outcomes: list[tuple[int, Outcome]] = []
        self._accepted = self._cancelled = self._prompt_tokens = self._generated_tokens = 0

    @property
    def is_idle(self) -> bool:
        return not self._requests and not self._outcomes

    @property
    def counters(self) -> ModelCounters:
        running = sum(request.is_running for request in self._requests.values())
        return ModelCounters(
            running=running,
            waiting=len(self._requests) - running,
            requests=self._accepted,
            cancelled=self._cancelled,
            prompt_tokens=self._prompt_tokens,
            generated_tokens=self._generated_tokens,
        )

    def add(self, id: int, request: GenerationRequest) -> None:
        """Queue a request, or refuse it."""
        try:
            self._requests[id] = accepted = self._prepare(id, request)
        except Exception as error:  # one request's fault must not become everybody's
            self._fail(id, error)
            return
        self._accepted += 1
        self._scheduler.waiting.extend(accepted.sequences)
        self._outcomes.append((id, Accepted()))

    def cancel(self, id: int) -> None:
        """Forget a request; one that is over already is no error."""
        if id in self._requests:
            self._cancelled += 1
            self._drop(id)

    @torch.inference_mode()
    def step(self) -> list[tuple[int, Outcome]]:
        """One token for every running sequence, and a piece of the prompts that are still to be read."""
        self._scheduler.admit()
        for sequence in self._scheduler.decodes():
            self._turn(sequence, self._decode)
        for sequence, count in self._scheduler.prefills():
            self._turn(sequence, partial(self._prefill, count=count))
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    # What comes in

    def _prepare(self, id: int, request: GenerationRequest) -> Request:
        if self._loaded.is_encoder_decoder and request.echo and request.logprobs is not None:
            why = "an encoder-decoder gives its prompt's tokens no probabilities; leave out 'logprobs'"
            raise UnsupportedParameter.named("echo", why)
        prompts = self._prompts.build(request)
        self._check_token_ids(request, prompts)
        accepted = Request(id, request, sum(len(prompt.token_ids) for prompt in prompts))
        for index, prompt in enumerate(prompts):
            limit = self._limit(request, prompt)
            for k in range(request.n):
                accepted.sequences.append(self._sequence(accepted, prompt, limit, index * request.n + k, k))
        return accepted

    def _check_token_ids(self, request: GenerationRequest, prompts: list[EncodedPrompt]) -> None:
        """Refuse token ids that the model has not, before they can do harm in its forward."""
        size = self._loaded.vocab_size
        for name, ids in [
            *((prompt.param, prompt.token_ids) for prompt in prompts),
            ("logit_bias", request.sampling.logit_bias),
            ("stop_token_ids", request.sampling.stop_token_ids),
        ]:
            if (wrong := next((id for id in ids if not 0 <= id < size), None)) is not None:
                raise InvalidRequest(f"'{name}': {wrong} is no token id; this model has {size}", param=name)

    def _sequence(self, accepted: Request, prompt: EncodedPrompt, limit: int, choice: int, k: int) -> Sequence:
        """Choice number `choice` of a request, the `k`-th answer to its prompt."""
        request = accepted.request
        tokens = list(self._starts or prompt.token_ids)
        sampler = Sampler(
            with_defaults(request.sampling, self._loaded.defaults),
            tokens,
            eos_token_ids=self._loaded.eos_token_ids,
            choice=k,
            matcher=self._grammars.for_request(request, prompt),
            processors=self._processors(prompt.token_ids, len(tokens), limit),
        )
        output = ChoiceOutput(self._loaded, request, prompt, choice)
        return Sequence(accepted, choice, prompt, tokens, limit, sampler, output)

    def _limit(self, request: GenerationRequest, prompt: EncodedPrompt) -> int:
        """How many new tokens an answer may have; raises where prompt and answer cannot fit."""
        context, length = self._loaded.context_length, len(prompt.token_ids)
        asked = _asked(request.sampling, length)
        if length == 0:
            raise InvalidRequest(f"the {prompt.param} must not be empty", param=prompt.param)
        # An encoder-decoder has its prompt and its answer in a context each.
        is_apart = self._loaded.is_encoder_decoder
        room = context - len(self._starts) if is_apart else context - length
        if asked is not None and request.sampling.is_cut_to_fit:
            asked = min(asked, max(room, 1))
        if room < (1 if asked is None else asked) or (is_apart and length > context):
            raise ContextLengthExceeded.of(context, length, asked, prompt.param)
        return asked if asked is not None else min(self._loaded.defaults.max_tokens or room, room)

    # What is computed

    def _turn(self, sequence: Sequence, work: Callable[[Sequence], None]) -> None:
        """Do a sequence's share of a step; where memory runs out, its request fails and no other."""
        try:
            work(sequence)
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            self._fail(sequence.request.id, error)

    def _decode(self, sequence: Sequence) -> None:
        self._advance(sequence, self._compute(sequence, 1)[-1])

    def _prefill(self, sequence: Sequence, count: int) -> None:
        """Read `count` more tokens of a prompt; the last of them gives the first new token."""
        scores_prompt = sequence.request.request.echo and sequence.request.request.logprobs is not None
        if sequence.limit == 0 and not scores_prompt:
            self._advance(sequence, None)
            return
        logits = self._compute(sequence, count, last_only=not scores_prompt)
        if scores_prompt:
            self._score_prompt(sequence, logits)
        if sequence.left_of_prompt == 0:
            for sibling in self._siblings(sequence):
                assert sequence.state is not None
                sibling.state, sibling.computed = sequence.state.copy(), sequence.computed
                sibling.prompt_logprobs = sequence.prompt_logprobs
                self._advance(sibling, logits[-1])
            self._advance(sequence, logits[-1])

    def _siblings(self, sequence: Sequence) -> list[Sequence]:
        """Running choices that start from the same prompt and have not begun to read it."""
        return [
            other
            for other in self._scheduler.running
            if other.prompt is sequence.prompt and other.computed == 0 and other is not sequence
        ]

    def _score_prompt(self, sequence: Sequence, logits: Tensor) -> None:
        """Note how likely the prompt's tokens were; `logits` are those after the tokens computed last."""
        first = sequence.computed - len(logits) + 1
        targets = sequence.tokens[first : first + len(logits)]
        if first == 1:
            sequence.prompt_logprobs.append(Logprob(None))
        sequence.prompt_logprobs += logprobs_of(logits[: len(targets)], targets, sequence.request.request.logprobs or 0)

    def _compute(self, sequence: Sequence, count: int, *, last_only: bool = True) -> Tensor:
        """Logits `[tokens, vocabulary]` after the sequence's next `count` tokens, or after the last of them."""
        if sequence.state is None:
            sequence.state = self._forward.start(sequence.prompt.token_ids)
        tokens = sequence.tokens[sequence.computed : sequence.computed + count]
        logits = self._forward(sequence.state, tokens, last_only=last_only)
        if sequence.is_prefilling:
            self._prompt_tokens += count
        sequence.computed += count
        return logits

    def _advance(self, sequence: Sequence, logits: Tensor | None) -> None:
        """Choose the next token from `logits` `[vocabulary]` (None: there is none to choose); say what comes of it."""
        try:
            self._say(sequence, logits)
        except Exception as error:  # a request's own fault: its grammar, its processors, its parser
            self._fail(sequence.request.id, error)

    def _say(self, sequence: Sequence, logits: Tensor | None) -> None:
        request = sequence.request.request
        if sequence.generated == 0 and request.echo:
            self._emit(sequence, sequence.output.echo(sequence.prompt_logprobs))
        if sequence.limit == 0 or logits is None:
            self._finish(sequence, "length")
            return
        token = sequence.sampler.choose(logits)
        sequence.tokens.append(token)
        sequence.generated += 1
        self._generated_tokens += 1
        if token in request.sampling.stop_token_ids or (
            token in self._loaded.eos_token_ids and not request.sampling.ignore_eos
        ):
            self._finish(sequence, "stop")
            return
        logprob = None if request.logprobs is None else logprobs_of(logits[None], [token], request.logprobs)[0]
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
        request = sequence.request
        request.completion_tokens += sequence.generated
        request.reasoning_tokens += sequence.output.reasoning_tokens
        request.sequences.remove(sequence)
        if not request.sequences:
            usage = Usage(request.prompt_tokens, request.completion_tokens, 0, request.reasoning_tokens)
            self._outcomes.append((request.id, usage))
            self._drop(request.id)

    def _fail(self, id: int, error: Exception) -> None:
        self._drop(id)
        if _is_out_of_memory(error):
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
            request.is_over = True
            for sequence in request.sequences:
                self._scheduler.remove(sequence)


def logprobs_of(logits: Tensor, tokens: list[int], top: int) -> list[Logprob]:
    """How likely each token was under its row of the model's `logits` `[tokens, vocabulary]`, and the `top` best."""
    logprobs = logits.float().log_softmax(-1)
    chosen = logprobs.gather(-1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].tolist()
    if not top:
        return [Logprob(logprob) for logprob in chosen]
    best = logprobs.topk(min(top, logprobs.shape[-1]))
    rows = zip(chosen, best.indices.tolist(), best.values.tolist(), strict=True)
    return [Logprob(logprob, tuple(zip(ids, values, strict=True))) for logprob, ids, values in rows]


def _asked(sampling: Sampling, prompt_length: int) -> int | None:
    """How many new tokens a request asks for; None leaves it open."""
    if sampling.max_length is None:
        return sampling.max_tokens
    if sampling.max_length < prompt_length:
        raise InvalidRequest(
            f"max_length is {sampling.max_length}, but the prompt alone has {prompt_length} tokens", param="max_length"
        )
    room = sampling.max_length - prompt_length
    return room if sampling.max_tokens is None else min(sampling.max_tokens, room)


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in str(error) or "out of memory" in str(error))
