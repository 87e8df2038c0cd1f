"""What repeats a request outside of the page: a curl line, a Python program, and the conversation as JSON. Pure."""

from __future__ import annotations

import json
import pprint
import shlex
from typing import Any
from urllib.parse import urlsplit

from .conversation import Choices, Conversation

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_SDK_FIELDS = {"model", "messages", "temperature", "top_p", "max_tokens", "seed", "stop", "tools"}


def curl(url: str, body: dict[str, Any], *, has_key: bool) -> str:
    """A line for a POSIX shell; the key comes from its environment."""
    key = ' \\\n    -H "Authorization: Bearer $MODEL_COMPOSE_API_KEY"' if has_key else ""
    data = shlex.quote(json.dumps({**body, "stream": True}, ensure_ascii=False))
    lines = [
        f"curl -N {shlex.quote(f'{url}/v1/chat/completions')}{key}",
        "-H 'Content-Type: application/json'",
        f"-d {data}",
    ]
    return " \\\n    ".join(lines)


def python(url: str, body: dict[str, Any], *, has_key: bool) -> str:
    """A program for the openai SDK; the key comes from its environment."""
    key = 'os.environ["MODEL_COMPOSE_API_KEY"]' if has_key else '"none"'
    arguments = "".join(
        f"    {name}={_literal(value)},\n" for name, value in body.items() if name in _SDK_FIELDS and value is not None
    )
    return (
        f"{'import os' + chr(10) * 2 if has_key else ''}from openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{url}/v1", api_key={key})\n'
        f"stream = client.chat.completions.create(\n{arguments}    stream=True,\n)\n"
        "for chunk in stream:\n"
        "    for choice in chunk.choices:\n"
        '        print(choice.delta.content or "", end="", flush=True)\n'
    )


def seen_from(host: str, url: str) -> str:
    """The server's `url` for someone who reaches this machine under the name in an HTTP request's `host`."""
    name, here = urlsplit(f"//{host}").hostname, urlsplit(url)
    if not name or here.hostname not in _LOOPBACK or name in _LOOPBACK:
        return url
    return f"http://{f'[{name}]' if ':' in name else name}:{here.port}"


def _literal(value: object) -> str:
    return pprint.pformat(value, width=100, sort_dicts=False).replace("\n", "\n    ")


def as_json(choices: Choices, conversation: Conversation) -> str:
    """The conversation, with the figures of its answers."""
    turns = [
        {
            "said": turn.said,
            "answer": None
            if (answer := turn.answer) is None
            else {
                "model": answer.model,
                "text": answer.text,
                "reasoning": answer.reasoning or None,
                "tool_calls": [{"name": call.name, "arguments": call.arguments} for call in answer.calls],
                "error": answer.error or None,
                "finish_reason": answer.finish or None,
                "prompt_tokens": answer.prompt_tokens,
                "completion_tokens": answer.tokens,
                "seconds_to_first_token": answer.first,
                "tokens_per_second": answer.speed,
            },
        }
        for turn in conversation.turns
    ]
    messages = [*choices.system_messages, *conversation.messages]
    whole = {"model": choices.model, "messages": messages, "turns": turns}
    return json.dumps(whole, indent=2, ensure_ascii=False)
