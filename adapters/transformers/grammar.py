"""Forms an answer must have, as masks over the next token; computed by llguidance."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..base import ChoiceConstraint, Constraint, GrammarConstraint, JsonConstraint, RegexConstraint
from ..errors import InvalidRequest, UnsupportedParameter
from .load import LoadedModel

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from llguidance._lib import JsonCompileOptions

# Models that may write any amount of white space between two JSON tokens are prone to never stop doing so.
JSON_OPTIONS: JsonCompileOptions = {"whitespace_pattern": r"[ \t\n\r]{1,40}"}
COMPILED_KEPT = 64
TEXT_KEPT = 12


@dataclass(frozen=True)
class Thinking:
    """How a model marks its thinking, which no grammar applies to; `is_open`: the prompt has begun it already."""

    open: str
    close: str
    is_open: bool


class Matcher:
    """What one sequence may say next, given what it has said."""

    def __init__(self, matcher: LLMatcher, loaded: LoadedModel, thinking: Thinking | None) -> None:
        self._matcher = matcher
        self._tokenizer = loaded.tokenizer
        self._vocab_size = loaded.vocab_size
        self._thinking = thinking
        self._is_thinking = thinking is not None and thinking.is_open
        self._may_think = thinking is not None and not thinking.is_open
        self._recent: list[int] = []
        self._think_token = self._single_token(thinking.open) if thinking is not None else None

    def allowed(self) -> torch.Tensor | None:
        """A bool for every logit, `[vocab_size]` on the CPU; None while everything is allowed."""
        if self._is_thinking:
            return None
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
        allowed = torch.from_numpy(bits[: self._vocab_size]).bool()
        if self._may_think and self._think_token is not None:
            allowed[self._think_token] = True
        return allowed

    def mask(self, logits: torch.Tensor) -> None:
        """Set what is not allowed in one row of logits, `[vocab_size]`, to minus infinity."""
        allowed = self.allowed()
        if allowed is not None:
            logits.masked_fill_(~allowed.to(logits.device), float("-inf"))

    def accept(self, token_id: int) -> None:
        """Move on by the token that was chosen; end-of-sequence tokens included."""
        if self._is_thinking:
            self._think(token_id)
        elif self._may_think and token_id == self._think_token:
            self._is_thinking = True
        else:
            self._matcher.consume_token(token_id)
        self._may_think = False

    @property
    def is_complete(self) -> bool:
        """Whether the answer may end here."""
        return not self._is_thinking and self._matcher.is_accepting()

    def _think(self, token_id: int) -> None:
        assert self._thinking is not None
        self._recent = [*self._recent[1 - TEXT_KEPT :], token_id]
        text = self._tokenizer.decode(self._recent, skip_special_tokens=False)
        self._is_thinking = self._thinking.close not in text

    def _single_token(self, text: str) -> int | None:
        found = self._tokenizer.get_added_vocab().get(text)
        return None if found is None else int(found)


class GrammarCompiler:
    """Makes the matchers of one model; its tokenizer is taken in on first use (a second for a large vocabulary)."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()

    def matcher(self, constraint: Constraint, thinking: Thinking | None = None) -> Matcher:
        """A matcher for one sequence; raises InvalidRequest where the constraint itself is wrong."""
        param, grammar = _grammar_of(constraint)
        return self.grammar_matcher(grammar, param, thinking)

    def grammar_matcher(self, grammar: str, param: str, thinking: Thinking | None = None) -> Matcher:
        """A matcher for a grammar in llguidance's own form, on behalf of the request's field `param`."""
        key = f"{param}\0{grammar}"
        if key not in self._compiled:
            self._compiled[key] = self._compile(grammar, param)
            if len(self._compiled) > COMPILED_KEPT:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(key)
        return Matcher(self._compiled[key].deep_copy(), self._loaded, thinking)

    def _compile(self, grammar: str, param: str) -> LLMatcher:
        from llguidance import LLMatcher

        tokenizer = self._taken_in(param)
        failed, messages = LLMatcher.validate_grammar_with_warnings(grammar, tokenizer)
        if failed:
            raise InvalidRequest(f"'{param}' cannot be used: {messages[0].strip()}", param=param)
        return LLMatcher(tokenizer, grammar, log_level=0)

    def _taken_in(self, param: str) -> LLTokenizer:
        if self._tokenizer is None:
            from transformers import PreTrainedTokenizerFast

            if not isinstance(self._loaded.tokenizer, PreTrainedTokenizerFast):
                raise UnsupportedParameter.named(param, "this model's tokenizer cannot be constrained")
            from llguidance.hf import from_tokenizer

            self._tokenizer = from_tokenizer(
                self._loaded.tokenizer,
                n_vocab=max(self._loaded.vocab_size, len(self._loaded.tokenizer)),
                eos_token=sorted(self._loaded.eos_token_ids) or None,
            )
        return self._tokenizer


def _grammar_of(constraint: Constraint) -> tuple[str, str]:
    """The request's field that a constraint comes from, and the constraint in llguidance's form."""
    from llguidance import LLMatcher

    match constraint:
        case JsonConstraint(schema):
            schema = {"type": "object"} if schema is None else schema
            return "response_format", LLMatcher.grammar_from_json_schema(schema, overrides=JSON_OPTIONS)
        case RegexConstraint(pattern):
            return "structured_outputs", LLMatcher.grammar_from_regex(pattern)
        case ChoiceConstraint(choices):
            lark = "start: " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)
            return "structured_outputs", LLMatcher.grammar_from_lark(lark)
        case GrammarConstraint(grammar):
            return "structured_outputs", LLMatcher.grammar_from_lark(grammar)
