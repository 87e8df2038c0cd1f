"""Forms an answer must have, as masks over the next token; computed by llguidance."""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..base import (
    ChoiceConstraint,
    Constraint,
    GenerationRequest,
    GrammarConstraint,
    JsonConstraint,
    NamedTool,
    RegexConstraint,
    Tool,
)
from ..errors import InvalidRequest, UnsupportedParameter
from .load import LoadedModel
from .prompt import EncodedPrompt
from .response_formats import Thinking, ToolSyntax

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from llguidance._lib import JsonCompileOptions

logger = logging.getLogger(__name__)

# Models that may write any amount of white space between two JSON tokens are prone to never stop doing so.
JSON_OPTIONS: JsonCompileOptions = {"whitespace_pattern": r" |\n[ \t]{0,24}"}
COMPILED_KEPT = 64
TOKENS_OF_A_MARK = 12


class Matcher:
    """What one sequence may say next, given what it has said; `param` is the request's field that asks for it.

    Thinking is free but for its end: it may not end the answer. The grammar begins after it.
    """

    def __init__(self, matcher: LLMatcher, loaded: LoadedModel, param: str, thinking: Thinking | None = None) -> None:
        self._matcher = matcher
        self._param = param
        self._tokenizer = loaded.tokenizer
        self._ends = sorted(loaded.eos_token_ids)
        self._vocab_size = loaded.vocab_size
        self._thinking = thinking
        self._is_thinking = thinking is not None and thinking.is_open
        self._free = set() if thinking is None or thinking.is_open else self._single_tokens(thinking.opens)
        self._recent: list[int] = []
        self._has_gap = False  # whether a line end stands between the thinking and the answer

    def allowed(self) -> torch.Tensor | None:
        """A bool for every logit, `[vocab_size]` on the CPU; None while everything is allowed."""
        if self._is_thinking:
            allowed = torch.ones(self._vocab_size, dtype=torch.bool)
            allowed[self._ends] = False
            return allowed
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
        allowed = torch.from_numpy(bits[: self._vocab_size]).bool()
        allowed[list(self._free)] = True
        return allowed

    def mask(self, logits: torch.Tensor) -> None:
        """Set what is not allowed in one row of logits, `[vocab_size]`, to minus infinity."""
        allowed = self.allowed()
        if allowed is not None:
            logits.masked_fill_(~allowed.to(logits.device), float("-inf"))

    def accept(self, token_id: int) -> None:
        """Move on by the token that was chosen, end-of-sequence tokens included.

        Raises InvalidRequest where the form proves too large.
        """
        if self._is_thinking:
            self._think(token_id)
            return
        has_thought = bool(self._recent)
        if token_id not in self._free:
            self._consume(token_id)
        elif not has_thought:
            self._is_thinking = True
        elif not self._has_gap:
            self._has_gap = True
            return
        self._free = set()

    @property
    def is_complete(self) -> bool:
        """Whether the answer may end here."""
        return not self._is_thinking and self._matcher.is_accepting()

    def _consume(self, token_id: int) -> None:
        self._matcher.consume_token(token_id)
        if self._matcher.is_error():  # it would allow nothing but the end from here on
            why = self._matcher.get_error().partition("\n")[0]
            raise InvalidRequest(f"'{self._param}' cannot be followed any further: {why}", param=self._param)

    def _think(self, token_id: int) -> None:
        assert self._thinking is not None
        self._recent = [*self._recent[1 - TOKENS_OF_A_MARK :], token_id]
        if self._thinking.closes in str(self._tokenizer.decode(self._recent, skip_special_tokens=False)):
            self._is_thinking = False
            self._free = self._single_tokens("\n", "\n\n")  # models were trained to leave a line free here

    def _single_tokens(self, *texts: str) -> set[int]:
        found = (self._tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
        return {int(ids[0]) for ids in found if len(ids) == 1}


class CallMatcher(Matcher):
    """Lets a sequence say anything until it begins a tool call, which then is a right call of a tool on offer."""

    def __init__(self, matcher: LLMatcher, loaded: LoadedModel, param: str, begin: int) -> None:
        super().__init__(matcher, loaded, param)
        self._begin = begin
        self._is_calling = False

    def allowed(self) -> torch.Tensor | None:
        return super().allowed() if self._is_calling else None

    def accept(self, token_id: int) -> None:
        self._is_calling = self._is_calling or token_id == self._begin
        if self._is_calling:
            super().accept(token_id)
            if self._matcher.is_accepting():
                self._matcher.reset()
                self._is_calling = False

    @property
    def is_complete(self) -> bool:
        return not self._is_calling


class GrammarCompiler:
    """Makes the matchers of one model; its tokenizer is taken in on first use (a second for a large vocabulary)."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._tokenizer: LLTokenizer | None = None
        self._is_ready = False
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()

    def get_ready(self) -> None:
        """Take the tokenizer in already, if that can be done, so that the first grammar holds nobody up."""
        if self._is_ready:
            return
        self._is_ready = True
        try:
            self._taken_in("")
        except Exception:  # a request that needs it is told
            logger.debug("the tokenizer of %s cannot be constrained", self._loaded.name, exc_info=True)

    def for_request(self, request: GenerationRequest, prompt: EncodedPrompt) -> Matcher | None:
        """The matcher of one choice of a request, None if it may say anything; raises InvalidRequest."""
        form = self._loaded.response_format if request.is_chat else None
        thinking = form.thinking(prompt.text) if form is not None else None
        if request.tools and (request.tool_choice == "required" or isinstance(request.tool_choice, NamedTool)):
            syntax = form.tool_syntax if form is not None else None
            if syntax is None:
                why = f"the calls of {self._loaded.name} cannot be forced; use 'auto'"
                raise UnsupportedParameter.named("tool_choice", why)
            return self._matcher(self._calls(request, syntax), "tool_choice", thinking)
        syntax = form.tool_syntax if form is not None and request.tools and request.tool_choice == "auto" else None
        if request.constraint is None:
            return self._strict(request, syntax) if syntax is not None else None
        if syntax is not None and isinstance(request.constraint, JsonConstraint):
            return self._matcher(self._calls(request, syntax, _schema(request.constraint)), "response_format", thinking)
        return self.matcher(request.constraint, thinking)

    def matcher(self, constraint: Constraint, thinking: Thinking | None = None) -> Matcher:
        """A matcher for one sequence; raises InvalidRequest where the constraint itself is wrong."""
        param, grammar = _grammar_of(constraint)
        return self._matcher(grammar, param, thinking)

    def _strict(self, request: GenerationRequest, syntax: ToolSyntax) -> Matcher | None:
        """A matcher for calls that may be made or not, if a tool is `strict` and a mark tells where a call begins."""
        if not any(tool["function"].get("strict") for tool in request.tools):
            return None
        tokenizer = self._taken_in("tools")
        begin = next(iter(tokenizer.tokenize_str(syntax.begin, parse_special=True)), None)
        if begin is None or not tokenizer.is_special_token(begin):
            return None
        grammar = tool_grammar(list(request.tools), syntax, tokenizer, is_single=not syntax.is_list)
        return CallMatcher(self._compiled_matcher(grammar, "tools"), self._loaded, "tools", begin)

    def _calls(self, request: GenerationRequest, syntax: ToolSyntax, answer: dict[str, Any] | None = None) -> str:
        """Tool calls in the model's own format, or instead of them an answer in JSON."""
        tools = list(request.tools)
        if isinstance(request.tool_choice, NamedTool):
            tools = [tool for tool in tools if tool["function"]["name"] == request.tool_choice.name]
            if not tools:
                raise InvalidRequest(f"there is no tool {request.tool_choice.name!r}", param="tool_choice")
        is_single = not request.parallel_tool_calls or isinstance(request.tool_choice, NamedTool)
        return tool_grammar(tools, syntax, self._taken_in("tools"), is_single=is_single, answer=answer)

    def _matcher(self, grammar: str, param: str, thinking: Thinking | None) -> Matcher:
        return Matcher(self._compiled_matcher(grammar, param), self._loaded, param, thinking)

    def _compiled_matcher(self, grammar: str, param: str) -> LLMatcher:
        key = f"{param}\0{grammar}"
        if key not in self._compiled:
            self._compiled[key] = self._compile(grammar, param)
            if len(self._compiled) > COMPILED_KEPT:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(key)
        return self._compiled[key].deep_copy()

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
        case JsonConstraint():
            return "response_format", LLMatcher.grammar_from_json_schema(_schema(constraint), overrides=JSON_OPTIONS)
        case RegexConstraint(pattern):
            return "structured_outputs", LLMatcher.grammar_from_regex(pattern)
        case ChoiceConstraint(choices):
            # One terminal, for the parser keeps a row for every alternative of a rule.
            lark = "start: CHOICE\nCHOICE: " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)
            return "structured_outputs", LLMatcher.grammar_from_lark(lark)
        case GrammarConstraint(grammar):
            return "structured_outputs", LLMatcher.grammar_from_lark(grammar)


def _schema(constraint: JsonConstraint) -> dict[str, Any]:
    return {"type": "object"} if constraint.schema is None else constraint.schema


def tool_grammar(
    tools: Sequence[Tool],
    syntax: ToolSyntax,
    tokenizer: LLTokenizer,
    *,
    is_single: bool,
    answer: dict[str, Any] | None = None,
) -> str:
    """A Lark grammar of one call or more of these tools; with `answer`, a JSON schema, of that instead of them too."""
    from llguidance import LLMatcher

    names = [f"call{index}" for index in range(len(tools))]
    one = f"({' | '.join(names)})"
    if syntax.is_list:
        more = "" if is_single else f'(", " {one})*'
        calls = f"{_literal(syntax.begin + '[', tokenizer)} {one} {more} {_literal(']' + syntax.end, tokenizer)}"
    else:
        whole = f"{_literal(syntax.begin, tokenizer)} {one} {_literal(syntax.end, tokenizer)}"
        calls = whole if is_single else f'{whole} ("\\n" {whole})*'
    lines = [f"start: {calls}" + (" | answer" if answer is not None else "")]
    for name, tool in zip(names, tools, strict=True):
        function = tool["function"]
        head = f'{{"name": {json.dumps(function["name"], ensure_ascii=False)}, "{syntax.arguments}": '
        lines.append(f'{name}: {json.dumps(head, ensure_ascii=False)} {name}arguments "}}"')
        lines.append(f"{name}arguments: {_json_rule(function.get('parameters'))}")
    if answer is not None:
        lines.append(f"answer: {_json_rule(answer)}")
    return LLMatcher.grammar_from_lark("\n".join(lines))


def _json_rule(schema: dict[str, Any] | None) -> str:
    schema = schema or {"type": "object"}
    if schema in ({"type": "object"}, {"type": "object", "properties": {}}):
        schema = {"type": "object", "properties": {}, "additionalProperties": False}
    return "%json " + json.dumps({**schema, "x-guidance": JSON_OPTIONS})


def _literal(text: str, tokenizer: LLTokenizer) -> str:
    """A text in Lark; its special tokens are written as such, since no text matches them."""
    parts: list[str] = []
    run = b""
    for token in tokenizer.tokenize_str(text, parse_special=True):
        if tokenizer.is_special_token(token):
            parts += [*_quoted(run), f"<[{token}]>"]
            run = b""
        else:
            run += tokenizer.decode_bytes([token])
    return " ".join([*parts, *_quoted(run)])


def _quoted(text: bytes) -> list[str]:
    return [json.dumps(text.decode(), ensure_ascii=False)] if text else []
