"""The messages and prompts that an action's templates render to. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...adapters.base import Message
from ...adapters.errors import InvalidRequest
from ..references import as_text, references_in, render_deep, resolve
from ..schema import ChatAction, TextAction
from .call import missing

ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def messages_of(action: ChatAction, scope: Mapping[str, Any]) -> tuple[Message, ...]:
    """The conversation for the model: lists spliced in, messages without content left out.

    Raises InvalidRequest, naming the inputs that are missing, if no message of a user is left.
    """
    templates = action.messages
    messages = tuple(_told(_spliced(render_deep(templates, scope))))
    if not any(message["role"] == "user" for message in messages):
        names = _absent(_of_users(templates), scope)
        raise InvalidRequest(
            missing(action, names, "no message of the user is left"), param=names[0] if names else "messages"
        )
    return messages


def prompts_of(action: TextAction, scope: Mapping[str, Any]) -> tuple[tuple[str, ...], bool]:
    """The texts to go on with, and whether they were given as a list; raises InvalidRequest if there is none."""
    value = render_deep(action.prompt, scope)
    texts = value if isinstance(value, list) else [value]
    if not texts or any(text is None for text in texts):
        names = _absent(action.prompt, scope)
        raise InvalidRequest(missing(action, names, "there is no prompt"), param=names[0] if names else "prompt")
    return tuple(map(as_text, texts)), isinstance(value, list)


def _spliced(value: Any) -> Iterator[Any]:
    """The items of lists in lists, one level after the other, as one."""
    if isinstance(value, list):
        for item in value:
            yield from _spliced(item)
    elif value is not None:
        yield value


def _told(messages: Iterator[Any]) -> Iterator[Message]:
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise InvalidRequest(
                f"a message must be an object with a 'role' ({', '.join(ROLES)}) and 'content', not "
                f"{as_text(message)[:80]!r}",
                param="messages",
            )
        content = message.get("content")
        if content is not None:
            yield {**message, "content": content if _is_content(content) else as_text(content)}
        elif message.get("tool_calls") or message.get("function_call"):
            yield message


def _is_content(content: Any) -> bool:
    """Whether this is a text or OpenAI's list of parts."""
    return isinstance(content, str) or (
        isinstance(content, list) and all(isinstance(part, dict) and "type" in part for part in content)
    )


def _of_users(templates: Any) -> list[Any]:
    """Those message templates that can become a user's message."""
    items = templates if isinstance(templates, list) else [templates]
    return [item for item in items if not isinstance(item, dict) or item.get("role") in ("user", None)]


def _absent(templates: Any, scope: Mapping[str, Any]) -> list[str]:
    """The inputs that templates refer to and that have no value."""
    references = [each for each in references_in(templates) if each.root == "input" and each.steps]
    return list(dict.fromkeys(each.path.removeprefix("input.") for each in references if resolve(each, scope) is None))
