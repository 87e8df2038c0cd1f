"""`model-compose chat`: a conversation in the terminal, streamed through the openai SDK."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import msgspec
import openai

from ..adapters.errors import ComposeError
from .asked import asked_server
from .console import explained, open_console
from .conversation import Conversation, explain
from .exit_codes import FAILED, INTERRUPTED, exit_code_of
from .talk import talk


class ChatOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to talk to and how; see the options of `model-compose chat`."""

    model: str | None
    url: str | None
    system: str | None
    temperature: float | None
    max_tokens: int | None
    api_key: str | None


def run(options: ChatOptions) -> int:
    """Chat until the input ends; the exit code is 0, 1 if a server or an answer could not be had, 130 after Ctrl-C.

    If there is no such model, or the server wants a key, it is 2.
    """
    console = open_console()
    try:
        with (
            asked_server(options.url, options.model, options.api_key, console) as (url, model),
            openai.OpenAI(base_url=url, api_key=options.api_key or "none") as client,
        ):
            conversation = Conversation(client, model, options.system, options.temperature, options.max_tokens)
            if sys.stdin.isatty():
                talk(conversation, url, options.api_key)
            else:
                answer_lines(conversation, sys.stdin)
    except ComposeError as error:
        console.say(explained(error), "red")
        return exit_code_of(error)
    except openai.OpenAIError as error:
        console.say(f"model-compose: {explain(error)}", "red")
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def answer_lines(conversation: Conversation, lines: Iterable[str]) -> None:
    """Each line is a turn, and its answer's text is printed as it is. Raises openai.OpenAIError."""
    for line in lines:
        if not line.strip():
            continue
        conversation.say(line.rstrip("\n"))
        for piece in conversation.answer():
            if not piece.is_reasoning:
                print(piece.text, end="", flush=True)
        print(flush=True)
