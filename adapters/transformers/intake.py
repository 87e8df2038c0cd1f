"""Requests -> sequences: prompts, limits, samplers and outputs, or why there can be no answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from ..base import GenerationRequest, Sampling
from ..errors import ContextLengthExceeded, InvalidRequest, UnsupportedParameter
from .ahead import MaskAhead
from .grammar import GrammarCompiler
from .in_turns import decoder_start
from .load import LoadedModel
from .output import ChoiceOutput
from .processors import ModelProcessors
from .prompt import EncodedPrompt, PromptBuilder
from .sampling import Sampler, with_defaults
from .sequences import Request, Sequence

GRAMMAR_THREADS = 2


class Intake:
    """Takes requests to one model in; prompt and answer may have `context_length` tokens together."""

    def __init__(self, loaded: LoadedModel, context_length: int) -> None:
        self._loaded = loaded
        self._context_length = context_length
        self._prompts = PromptBuilder(loaded)
        self._grammars = GrammarCompiler(loaded)
        self._processors = ModelProcessors(loaded)
        self._starts = decoder_start(loaded) if loaded.is_encoder_decoder else []
        self._threads = ThreadPoolExecutor(GRAMMAR_THREADS, thread_name_prefix="grammar")

    def get_ready(self) -> None:
        """Do what the first request with a grammar would have to wait for."""
        self._grammars.get_ready()

    def __call__(self, id: int, request: GenerationRequest) -> Request:
        """The request with a sequence for each answer to each of its prompts; raises what refuses it."""
        if self._loaded.is_encoder_decoder and request.echo and request.logprobs is not None:
            why = "an encoder-decoder gives its prompt's tokens no probabilities; leave out 'logprobs'"
            raise UnsupportedParameter.named("echo", why)
        prompts = self._prompts.build(request)
        self._check_token_ids(request, prompts)
        priority = request.extra.get("priority", 0)
        if not isinstance(priority, int):
            raise InvalidRequest("'priority' must be a whole number; less comes first", param="priority")
        accepted = Request(id, request, sum(len(prompt.token_ids) for prompt in prompts), priority)
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
        matcher = self._grammars.for_request(request, prompt)
        sampler = Sampler(
            with_defaults(request.sampling, self._loaded.defaults),
            tokens,
            eos_token_ids=self._loaded.eos_token_ids,
            choice=k,
            matcher=None if matcher is None else MaskAhead(matcher, self._threads),
            processors=self._processors(prompt.token_ids, len(tokens), limit),
        )
        output = ChoiceOutput(self._loaded, request, prompt, choice)
        return Sequence(accepted, choice, prompt, tokens, limit, sampler, output)

    def _limit(self, request: GenerationRequest, prompt: EncodedPrompt) -> int:
        """How many new tokens an answer may have; raises where prompt and answer cannot fit."""
        context, length = self._context_length, len(prompt.token_ids)
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
