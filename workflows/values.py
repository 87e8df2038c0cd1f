"""What is wrong with values that templates may stand in, as far as that shows before there is an input. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .components.messages import ROLES
from .references import Template
from .schema import Action, ChatAction, Component, HttpAction, HttpClientComponent, ShellAction

Path = tuple[str | int, ...]
Fault = tuple[Path, str]


def faults_of(component: Component) -> Iterator[Fault]:
    """What can never work, by its path in the component; its actions are looked at by themselves."""
    if isinstance(component, HttpClientComponent):
        yield from _url(("base_url",), component.base_url)


def faults_of_action(action: Action) -> Iterator[Fault]:
    """What can never work, by its path in the action."""
    match action:
        case ChatAction():
            yield from _messages(("messages",), action.messages)
            yield from _tools(("tools",), action.tools)
        case HttpAction():
            yield from _url(("endpoint",), action.endpoint)
        case ShellAction():
            yield from _command(("command",), action.command)


def _messages(path: Path, value: Any) -> Iterator[Fault]:
    match value:
        case list():
            for number, item in enumerate(value):
                yield from _messages((*path, number), item)
        case dict():
            yield from _message(path, value)
        case Template() if value.only is not None:
            return
        case None:
            return
        case _:
            yield path, "must be a message: a mapping with 'role' and 'content', or a reference to messages"


def _message(path: Path, message: dict[str, Any]) -> Iterator[Fault]:
    role = message.get("role")
    if role is None:
        yield path, f"has no 'role': {', '.join(ROLES)}"
    elif not isinstance(role, Template) and role not in ROLES:
        yield (*path, "role"), f"must be one of {', '.join(ROLES)}"
    if not message.keys() & _SAYING:
        yield path, "has no 'content'"


def _tools(path: Path, value: Any) -> Iterator[Fault]:
    match value:
        case list():
            for number, item in enumerate(value):
                yield from _tools((*path, number), item)
        case {"function": dict() | Template()} | Template() | None:
            return
        case _:
            yield path, "must be a tool as OpenAI writes it: {type: function, function: {name: ..., parameters: ...}}"


def _url(path: Path, value: Any) -> Iterator[Fault]:
    begins = value.parts[0] if isinstance(value, Template) and value.parts else value
    if isinstance(begins, str) and not re.match(r"https?://[^\s/]" if begins is value else r"https?://", begins):
        yield path, f"must be a URL as http://host:port, not '{begins[:60]}'"


def _command(path: Path, value: Any) -> Iterator[Fault]:
    words = value if isinstance(value, list) else [value]
    if value is not None and (not words or not all(isinstance(word, str | Template) and word for word in words[:1])):
        yield path, "must be a command: a text for the shell, or a list of words"
    for number, word in enumerate(words[1:], 1):
        if not isinstance(word, str | Template):
            yield (*path, number), "must be a word, or a reference to one"


_SAYING = {"content", "tool_calls", "function_call"}
