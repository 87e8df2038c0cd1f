"""The interactive half of `chat`: what is typed at a terminal, what is shown there, and the commands with a slash."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import closing, suppress

import openai

from .console import harmless
from .conversation import Conversation, explain
from .reach import served_models

HELP = """\
/retry          answer the last message again
/clear          forget the conversation
/system [TEXT]  show the system prompt, or set it
/model [NAME]   show the models, or take another one
/help           show this
/exit           leave; so does Ctrl-D
Ctrl-C stops an answer."""

_COMMAND = re.compile(r"/([a-z]+)(?:\s+(.*))?", re.DOTALL)


def talk(conversation: Conversation, url: str, api_key: str | None) -> None:
    """Read messages and commands, and show answers, until Ctrl-D or /exit."""
    _Talk(conversation, url, api_key).run()


class _Talk:
    def __init__(self, conversation: Conversation, url: str, api_key: str | None) -> None:
        self._conversation = conversation
        self._url = url
        self._api_key = api_key
        self._is_over = False
        self._commands: dict[str, Callable[[str], None]] = {
            "retry": self._retry,
            "clear": self._clear,
            "system": self._system,
            "model": self._model,
            "help": self._help,
            "exit": self._exit,
        }

    def run(self) -> None:
        _edit_lines_well()
        _note(f"{self._conversation.model} at {self._url}. /help shows the commands, Ctrl-D ends the chat.")
        while not self._is_over:
            try:
                text = input("\n> ").strip()
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                _note("\nCtrl-D ends the chat.")
                continue
            if text:
                self._take(text)

    def _take(self, text: str) -> None:
        command = _COMMAND.fullmatch(text)
        if command is None:
            self._conversation.say(text)
            self._answer()
        elif command[1] in self._commands:
            self._commands[command[1]](command[2] or "")
        else:
            _note(f"There is no command /{command[1]}; /help shows those there are.")

    def _answer(self) -> None:
        try:
            self._show_answer()
        except openai.OpenAIError as error:
            print()
            _show(explain(error), "31")
        except KeyboardInterrupt:
            _note(" [stopped]")

    def _show_answer(self) -> None:
        """Show the answer as it comes, its thinking dimmed; leaving early ends the request at the server."""
        was_reasoning = False
        # `closing` is what ends the request after Ctrl-C.
        with closing(self._conversation.answer()) as pieces:
            for piece in pieces:
                if was_reasoning and not piece.is_reasoning:
                    print("\n")
                was_reasoning = piece.is_reasoning
                _show(piece.text, "2" if piece.is_reasoning else "", end="")
        print()

    def _retry(self, _rest: str) -> None:
        if self._conversation.take_back():
            self._answer()
        else:
            _note("There is no message to answer.")

    def _clear(self, _rest: str) -> None:
        self._conversation.clear()
        _note("Forgotten.")

    def _system(self, rest: str) -> None:
        if rest:
            self._conversation.system = rest
        _note(f"System prompt: {self._conversation.system or 'none'}")

    def _model(self, rest: str) -> None:
        models = served_models(self._url, self._api_key) or []
        if rest in models:
            self._conversation.model = rest
        elif rest:
            _note(f"There is no model '{rest}'.")
        for name in models:
            _note(f"{'*' if name == self._conversation.model else ' '} {name}")

    def _help(self, _rest: str) -> None:
        _note(HELP)

    def _exit(self, _rest: str) -> None:
        self._is_over = True


def _edit_lines_well() -> None:
    """Arrow keys, a history of this chat, and pasted text of several lines as one message."""
    with suppress(ImportError):  # Windows has no readline
        import readline

        readline.parse_and_bind("set enable-bracketed-paste on")


def _note(text: str) -> None:
    _show(text, "2")


def _show(text: str, style: str, end: str = "\n") -> None:
    """Print on standard output; `style` is an ANSI code, left out where nobody would see it."""
    text = harmless(text)
    print(f"\x1b[{style}m{text}\x1b[0m" if style and sys.stdout.isatty() else text, end=end, flush=True)
