"""Chat messages as weighted pieces of text, in exactly the words of `chat_template.jinja` (a test compares them)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]

SPELL_OPEN, SPELL_CLOSE = "\x01", "\x02"  # text between these is trained letter by letter
PROMPT_WEIGHT, ANSWER_WEIGHT = 0.1, 1.0
THINK = "<think>\n"

TOOLS_BEFORE = "You can call these tools:\n<tools>\n"
TOOLS_AFTER = "</tools>\nTo call one, answer with its name and arguments in <tool_call></tool_call>."


@dataclass(frozen=True)
class Example:
    """One training text: a conversation with the tools it offers, or a plain document."""

    skill: str
    messages: tuple[Message, ...] = ()
    tools: tuple[Message, ...] = ()
    document: str = ""


def spelled(text: str) -> str:
    """Mark a text to be trained letter by letter."""
    return f"{SPELL_OPEN}{text}{SPELL_CLOSE}"


def plain(text: str) -> str:
    """A text without spelling marks."""
    return text.replace(SPELL_OPEN, "").replace(SPELL_CLOSE, "")


def unspelled(text: str) -> str:
    """A text without what is to be spelled."""
    return "".join(part for part, is_spelled in marked(text) if not is_spelled)


def tool_call(name: str, arguments: dict[str, Any]) -> Message:
    """A tool call in the shape that an assistant message carries."""
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def render(example: Example) -> list[tuple[str, float]]:
    """The pieces of an example with their loss weights, in order."""
    if example.document:
        return [(example.document, ANSWER_WEIGHT), ("<|endoftext|>", ANSWER_WEIGHT)]
    messages = example.messages
    pieces: list[tuple[str, float]] = []
    if example.tools:
        system = ""
        if messages and messages[0]["role"] == "system":
            system, messages = messages[0]["content"].strip() + "\n\n", messages[1:]
        tools = "".join(json.dumps(tool["function"], ensure_ascii=False) + "\n" for tool in example.tools)
        pieces.append((f"<|im_start|>system\n{system}{TOOLS_BEFORE}{tools}{TOOLS_AFTER}<|im_end|>\n", PROMPT_WEIGHT))
    for message in messages:
        pieces += _turn(message)
    return pieces


def _turn(message: Message) -> list[tuple[str, float]]:
    head = f"<|im_start|>{message['role']}\n"
    if message["role"] != "assistant":
        return [(f"{head}{message['content']}<|im_end|>\n", PROMPT_WEIGHT)]
    if message.get("weight") == 0:
        return [(f"{head}{answer_text(message)}<|im_end|>\n", PROMPT_WEIGHT)]
    answer = answer_text(message)
    pieces = [(head, PROMPT_WEIGHT)]
    if answer.startswith(THINK):  # the chat template opens the thought when it is asked for; the model never does
        pieces.append((THINK, 0.0))
        answer = answer.removeprefix(THINK)
    return [*pieces, (f"{answer}<|im_end|>", ANSWER_WEIGHT), ("\n", PROMPT_WEIGHT)]


def answer_text(message: Message) -> str:
    """What the model writes for an assistant message: thinking, content and tool calls."""
    reasoning = message.get("reasoning_content")
    text = f"{THINK}{reasoning.strip()}\n</think>\n\n" if reasoning else ""
    text += message.get("content") or ""
    calls = [
        f'<tool_call>\n{{"name": {json.dumps(call["function"]["name"])}, "arguments": '
        f"{json.dumps(call['function']['arguments'], ensure_ascii=False)}}}\n</tool_call>"
        for call in message.get("tool_calls", ())
    ]
    return text + ("\n" if calls and message.get("content") else "") + "\n".join(calls)


def marked(text: str) -> list[tuple[str, bool]]:
    """A text cut at its spelling marks; the flag says whether a cut is to be spelled."""
    parts = re.split(f"{SPELL_OPEN}([^{SPELL_CLOSE}]*){SPELL_CLOSE}", text)
    return [(part, index % 2 == 1) for index, part in enumerate(parts) if part]
