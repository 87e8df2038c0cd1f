"""How models mark their thinking and their tool calls, for those whose tokenizer does not say it itself.

`FORMATS` is the table. A format's `fields` are those of a transformers `response_template`: a region of the answer
begins where its `open` matches and ends where its `close` does; the field that has no `open` takes what is left.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_parsing.response_templates import ResponseTemplate, load_response_template

from .detokenize import Vocabulary

logger = logging.getLogger(__name__)

REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
TOOL_FIELD = "tool_calls"
CONTENT_FIELD = "content"
TRIAL = [{"role": "user", "content": "Hello"}]
# What templates raise when they are given what their authors did not think of.
TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, KeyError, AttributeError)

# Where the assistant's message begins in a prompt: what comes after the last of these was written in the model's name.
ANSWER_BEGINS = "|".join(
    (
        r"<\|im_start\|>assistant\n",
        r"<\|start_header_id\|>assistant<\|end_header_id\|>\n*",
        r"<｜Assistant｜>",
        r"<\|assistant\|>\n?",
        r"<\|turn>model\n",
        r"<start_of_turn>model\n",
        r"<\|start_of_role\|>assistant<\|end_of_role\|>",
        r"<\|start\|>assistant",
        r"\[/INST\]",
    )
)

# A prompt that ends in these has begun the thinking, or has begun and ended it.
TAIL = re.compile(r"(?:<think>|\[THINK\])\s*(?:(?:</think>|\[/THINK\])\s*)?\Z")


@dataclass(frozen=True)
class ToolSyntax:
    """The text around the JSON of a tool call, for making a model write one; `begin` opens, `end` closes every call."""

    begin: str
    end: str
    arguments: str = "arguments"
    is_list: bool = False


@dataclass(frozen=True)
class Thinking:
    """How a model marks its thinking; `is_open`: the prompt has begun it already."""

    opens: str
    closes: str
    is_open: bool


@dataclass(frozen=True)
class Format:
    """One family's way: `signs` must all stand in the chat template (or be added tokens) for it to be this one."""

    name: str
    signs: tuple[str, ...]
    fields: Mapping[str, Mapping[str, Any]]
    tool_syntax: ToolSyntax | None = None


def _thinking(opens: str, closes: str) -> dict[str, Any]:
    return {"open_pattern": rf"\s*{re.escape(opens)}\n?", "close_pattern": rf"\n?{re.escape(closes)}\n*"}


THINK = {"reasoning_content": _thinking("<think>", "</think>")}
MISTRAL_THINK = {"reasoning_content": _thinking("[THINK]", "[/THINK]")}
FUNCTION = {"type": "function", "function": "{content}"}
NAMED_FUNCTION = {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}}


def _tools(open_pattern: str, close_pattern: str, **more: Any) -> dict[str, Any]:
    field = {"open_pattern": open_pattern, "close_pattern": close_pattern, "content": "json", "repeats": True}
    return {TOOL_FIELD: {**field, "transform": FUNCTION, **more}}


def _content(*ends: str) -> dict[str, Any]:
    return {CONTENT_FIELD: {"close": list(ends)} if ends else {}}


HERMES_TOOLS = _tools(r"\s*<tool_call>\s*", r"\s*</tool_call>")
HERMES_SYNTAX = ToolSyntax("<tool_call>\n", "\n</tool_call>")

# The more particular formats come first.
FORMATS = (
    Format(
        "gpt-oss",
        ("<|channel|>", "<|constrain|>"),
        {
            "reasoning_content": {
                "open_pattern": r"(?:<\|start\|>assistant)?<\|channel\|>analysis<\|message\|>",
                "close_pattern": r"<\|end\|>",
            },
            **_tools(
                r"(?:<\|start\|>assistant)?(?:<\|channel\|>commentary)? to=functions\.(?P<name>[\w.-]+)"
                r"(?:<\|channel\|>commentary)?\s*(?:<\|constrain\|>\w+)?<\|message\|>",
                r"<\|call\|>|<\|end\|>",
                transform=NAMED_FUNCTION,
            ),
            CONTENT_FIELD: {
                "open_pattern": r"(?:<\|start\|>assistant)?<\|channel\|>(?:final|commentary)\s*"
                r"(?:<\|constrain\|>\w+)?<\|message\|>",
                "close_pattern": r"<\|return\|>|<\|end\|>",
            },
        },
    ),
    Format(
        "gemma4",
        ("<|channel>", "<|tool_call>"),
        {
            "reasoning_content": {"open_pattern": r"<\|channel>thought\n", "close": "<channel|>"},
            **_tools(
                r"<\|tool_call>call:(?P<name>[\w.-]+)",
                r"<tool_call\|>",
                content_args={"unquoted_keys": True, "string_delims": [['<|"|>', '<|"|>']]},
                transform=NAMED_FUNCTION,
            ),
            **_content("<turn|>", "<|tool_response>"),
        },
    ),
    Format(
        "deepseek",
        ("<｜tool▁call▁begin｜>",),
        {
            **THINK,
            **_tools(
                r"\s*<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>(?P<name>[\w.-]+)\n```json\n"
                r"|(?!function<)(?P<name>[\w.-]+)<｜tool▁sep｜>)",
                r"\s*(?:```)?<｜tool▁call▁end｜>",
                transform=NAMED_FUNCTION,
            ),
            **_content("<｜end▁of▁sentence｜>", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
        },
    ),
    Format(
        "glm",
        ("<tool_call>", "<arg_key>"),
        {
            **THINK,
            **_tools(
                r"\s*<tool_call>\s*(?P<name>[\w.-]+)",
                r"\s*</tool_call>",
                content="xml-inline",
                content_args={
                    "tag_pattern": r"<arg_key>\s*(?P<key>.*?)\s*</arg_key>\s*<arg_value>(?P<value>.*?)</arg_value>"
                },
                transform=NAMED_FUNCTION,
            ),
            **_content(),
        },
    ),
    Format(
        "qwen3.5",
        ("<tool_call>", "<function=", "<parameter="),
        {
            **THINK,
            **_tools(
                r"\s*<tool_call>\s*<function=(?P<name>[^>\n]+)>",
                r"\s*</function>\s*</tool_call>",
                content="xml-inline",
                content_args={"tag_pattern": r"<parameter=(?P<key>[^>\n]+)>\n?(?P<value>.*?)\n?</parameter>"},
                transform=NAMED_FUNCTION,
            ),
            **_content(),
        },
    ),
    Format("hermes", ("<tool_call>",), {**THINK, **HERMES_TOOLS, **_content()}, HERMES_SYNTAX),
    Format(
        "mistral-named",
        ("[TOOL_CALLS]", "[ARGS]"),
        {
            **MISTRAL_THINK,
            **_tools(
                r"\s*\[TOOL_CALLS\](?P<name>[\w.-]+)(?:\[CALL_ID\]\w+)?\[ARGS\]",
                r"(?=\[TOOL_CALLS\])|</s>",
                transform=NAMED_FUNCTION,
            ),
            **_content("</s>"),
        },
    ),
    Format(
        "mistral",
        ("[TOOL_CALLS]",),
        {**MISTRAL_THINK, **_tools(r"\s*\[TOOL_CALLS\]\s*", "</s>"), **_content("</s>")},
        ToolSyntax("[TOOL_CALLS] ", "", is_list=True),
    ),
    Format(
        "phi4",
        ("<|tool_call|>",),
        {**THINK, **_tools(r"\s*<\|tool_call\|>\s*", r"\s*(?:<\|/tool_call\|>|<\|end\|>)"), **_content()},
    ),
    Format(
        "llama3",
        ("<|start_header_id|>", '"parameters"'),
        {
            **THINK,
            # The whole message is the call; nothing but its form tells it from an answer in JSON.
            **_tools(r'\A\s*(?:<\|python_tag\|>)?\s*(?=\{\s*"(?:name|type)"\s*:)', r"<\|eom_id\|>|<\|eot_id\|>"),
            **_content("<|eom_id|>", "<|eot_id|>"),
        },
        ToolSyntax("", "", arguments="parameters"),
    ),
    Format("think", ("<think>",), {**THINK, **_content()}),
    Format("think-closed", ("</think>",), {**THINK, **_content()}),
    Format("mistral-think", ("[THINK]",), {**MISTRAL_THINK, **_content()}),
)


class ResponseFormat:
    """How one model's chat answers are read: their regions and the marks around them.

    `only_text` is the format without tool calls. `hidden_ids` are the special tokens that are no marks of it.
    `trial` is a prompt with thinking switched on, which shows whether it is the prompt that opens it.
    """

    def __init__(
        self, spec: Mapping[str, Any], vocabulary: Vocabulary, trial: str = "", tool_syntax: ToolSyntax | None = None
    ) -> None:
        text_fields = {name: field for name, field in spec["fields"].items() if name != TOOL_FIELD}
        self.whole = load_response_template(dict(spec))
        self.only_text = load_response_template({**spec, "fields": text_fields})
        self.tool_syntax = tool_syntax if tool_syntax is not None else _matching_syntax(self.whole)
        self.thinking_marks = _thinking_marks(self.whole)
        self._prompt_opens = self.thinking_marks is not None and self.thinking_marks[0] in begun_answer(
            self.whole, trial
        )
        marks = "\n".join(_patterns(self.whole))
        self.hidden_ids = frozenset(
            token
            for token in vocabulary.special_ids
            if (text := vocabulary.token_text(token)) not in marks and re.escape(text) not in marks
        )

    def thinking(self, prompt: str) -> Thinking | None:
        """The thinking that may come after `prompt`; None if it thinks not at all, or not after this one."""
        if self.thinking_marks is None:
            return None
        opens, closes = self.thinking_marks
        begun = begun_answer(self.whole, prompt)
        if closes in begun and begun.rfind(closes) > begun.rfind(opens):
            return None
        is_open = opens in begun
        return Thinking(opens, closes, is_open) if is_open or not self._prompt_opens else None


def begun_answer(template: ResponseTemplate, prompt: str) -> str:
    """What the prompt has already written of the answer."""
    after = None
    for anchor in template.start_anchor_re.finditer(prompt):
        after = anchor.end()
    if after is not None:
        return prompt[after:]
    tail = TAIL.search(prompt)
    return tail[0] if tail is not None else ""


def response_format(tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary) -> ResponseFormat | None:
    """The tokenizer's own `response_template` if it has a usable one, else the table's; None for plain text."""
    trial = _trial_prompt(tokenizer)
    own = getattr(tokenizer, "response_template", None)
    if own is not None:
        try:
            return ResponseFormat(own, vocabulary, trial)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            logger.warning("the tokenizer's response_template is not usable: %s", error)
    found = find_format(tokenizer)
    if found is None:
        return None
    fields = {name: dict(field) for name, field in found.fields.items()}
    spec = {"start_anchor_pattern": ANSWER_BEGINS, "fields": fields}
    return ResponseFormat(spec, vocabulary, trial, found.tool_syntax)


def _trial_prompt(tokenizer: PreTrainedTokenizerBase) -> str:
    """A short chat's prompt with thinking switched on; empty if the template does not take it."""
    if tokenizer.chat_template is None:
        return ""
    switches: dict[str, Any] = {"enable_thinking": True, "thinking": True}
    try:
        prompt = tokenizer.apply_chat_template(TRIAL, tokenize=False, add_generation_prompt=True, **switches)
    except TEMPLATE_ERRORS:
        return ""
    return str(prompt)


def find_format(tokenizer: PreTrainedTokenizerBase) -> Format | None:
    """The first format of the table whose signs are all in the chat template or among the added tokens."""
    template = tokenizer.chat_template
    if template is None:
        return None
    texts = template if isinstance(template, str) else "\n".join(template.values())
    added = tokenizer.get_added_vocab()
    return next((f for f in FORMATS if all(sign in texts or sign in added for sign in f.signs)), None)


def _patterns(template: ResponseTemplate) -> Iterator[str]:
    for field in template.fields.values():
        yield from (compiled.pattern for compiled in (field.open_re, field.close_re) if compiled is not None)
        yield from (*(field.open_literals or ()), *(field.close_literals or ()))


def _matching_syntax(template: ResponseTemplate) -> ToolSyntax | None:
    """The syntax to write calls in that a tokenizer's own template would read."""
    field = template.fields.get(TOOL_FIELD)
    if field is None or field.content != "json" or field.open_re is None or field.close_re is None:
        return None
    is_hermes = field.open_re.fullmatch("<tool_call>\n") or field.open_re.fullmatch("<tool_call>")
    return HERMES_SYNTAX if is_hermes and not field.open_re.groupindex else None


def _thinking_marks(template: ResponseTemplate) -> tuple[str, str] | None:
    field = next((template.fields[name] for name in REASONING_FIELDS if name in template.fields), None)
    if field is None or field.open_re is None or field.close_re is None:
        return None
    known = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
    return next((m for m in known if field.open_re.fullmatch(m[0]) and field.close_re.fullmatch(m[1])), None)
