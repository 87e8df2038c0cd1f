"""`model-compose chat`: at a terminal, through a pipe, and with a server of its own."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from commands import call
from scripted import ScriptedAdapter, Step, says
from served import COMMAND, ENVIRONMENT, a_free_port
from threaded import served_by

from modelcompose.adapters.base import GenerationRequest
from modelcompose.adapters.errors import ContextLengthExceeded
from modelcompose.adapters.events import TextDelta

SECONDS = 40
ESCAPES = re.compile(r"\x1b\[[?0-9;]*[a-zA-Z]")


class Keyboard:
    """A person at a terminal: types, and waits for what appears."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self._master = master
        self.process = process
        self.screen = ""

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def see(self, pattern: str) -> str:
        """Wait until the pattern appears behind what was seen before; what appeared up to its end."""
        deadline = time.monotonic() + SECONDS
        while not (found := re.search(pattern, self.screen, re.DOTALL)):
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.screen!r}"
            if select.select([self._master], [], [], 0.2)[0]:
                self._read()
        shown, self.screen = self.screen[: found.end()], self.screen[found.end() :]
        return shown

    def _read(self) -> None:
        try:
            self.screen += os.read(self._master, 4096).decode(errors="replace")
        except OSError:  # Linux says so when the other end has closed
            time.sleep(0.1)
        self.screen = ESCAPES.sub("", self.screen).replace("\r\n", "\n")


@contextmanager
def at_a_terminal(*arguments: str) -> Iterator[Keyboard]:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "chat", *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**ENVIRONMENT, "TERM": "dumb"},
        start_new_session=True,
        preexec_fn=_take_the_terminal,  # noqa: PLW1509 (no other thread of these tests forks)
    )
    os.close(slave)
    try:
        yield Keyboard(master, process)
    finally:
        process.terminate()
        process.wait(20)
        os.close(master)


def _take_the_terminal() -> None:
    """Standard input becomes the terminal that Ctrl-C is typed at."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Talker(NamedTuple):
    """A server's URL, and the model behind it."""

    url: str
    adapter: ScriptedAdapter


def repeats(request: GenerationRequest) -> list[Step]:
    """The script of a model that says how many messages it sees, and the last of them."""
    said = str(request.messages[-1]["content"])
    if len(said) > 10_000:
        return [ContextLengthExceeded("This model's maximum context length is 9 tokens.")]
    return says(f"{len(request.messages)}: ", said)


@pytest.fixture(scope="module")
def talker() -> Iterator[Talker]:
    adapter = ScriptedAdapter({"parrot": repeats})
    with served_by(adapter) as url:
        yield Talker(url, adapter)


def test_a_chat_streams_keeps_its_history_and_ends_with_ctrl_d(talker: Talker) -> None:
    with at_a_terminal("parrot", "--url", talker.url, "--temperature", "0", "--max-tokens", "20") as keyboard:
        keyboard.see("parrot at .*> ")
        keyboard.type("Hello!\r")
        keyboard.see("1: Hello!\n.*> ")
        sampling = talker.adapter.requests[-1].sampling
        assert (sampling.temperature, sampling.max_tokens) == (0, 20)
        keyboard.type("Hello again!\r")
        keyboard.see("3: Hello again!\n.*> ")
        keyboard.type("/retry\r")
        keyboard.see("3: Hello again!\n.*> ")
        keyboard.type("/system Answer as a pirate.\r")
        keyboard.see("System prompt: Answer as a pirate.*> ")
        keyboard.type("/model nothing\r")
        keyboard.see(r"There is no model 'nothing'.*\* parrot.*> ")
        keyboard.type("/nonsense\r")
        keyboard.see("no command /nonsense.*> ")
        keyboard.type("/clear\r")
        keyboard.see("Forgotten.*> ")
        keyboard.type("/retry\r")
        keyboard.see("no message to answer.*> ")
        keyboard.type("Ahoy!\r")
        keyboard.see("2: Ahoy!\n.*> ")
        keyboard.type("\x04")
        assert keyboard.process.wait(SECONDS) == 0


def test_ctrl_c_stops_the_answer_at_the_server_too_and_the_chat_goes_on() -> None:
    adapter = ScriptedAdapter({"teller": [step for _ in range(5000) for step in (TextDelta("and then "), 0.01)]})
    with served_by(adapter) as url, at_a_terminal("--url", url) as keyboard:
        keyboard.see("> ")
        keyboard.type("Tell me a very long story.\r")
        keyboard.see("and then and then")
        keyboard.type("\x03")
        keyboard.see(r"\[stopped\].*> ")
        time.sleep(0.3)  # a person's; between its prompt and its first look at the keys, readline hears no Ctrl-C
        keyboard.type("\x03")
        keyboard.see("Ctrl-D ends the chat.*> ")
        keyboard.type("/exit\r")
        assert keyboard.process.wait(SECONDS) == 0
        assert adapter.closed_early == 1


def test_through_a_pipe_each_line_is_a_turn_and_only_answers_come_out(talker: Talker) -> None:
    ended = call("chat", "--url", talker.url, stdin="Hello!\n\nThanks!\n")
    assert (ended.returncode, ended.stderr) == (0, "parrot: ready\n")
    assert ended.stdout == "1: Hello!\n3: Thanks!\n"


def test_without_a_server_it_starts_one_and_takes_it_along(tiny_folder: Path) -> None:
    with at_a_terminal(str(tiny_folder), "--max-tokens", "5") as keyboard:
        url = re.search(r"tiny at (http://127\.0\.0\.1:\d+)/v1", keyboard.see("tiny at .*> "))
        assert url
        (server,) = psutil.Process(keyboard.process.pid).children()
        everything = [server, *server.children(recursive=True)]
        keyboard.type("a\r")
        keyboard.see("\n.*\n> ")
        keyboard.type("\x04")
        assert keyboard.process.wait(SECONDS) == 0
    assert psutil.wait_procs(everything, timeout=5)[1] == []


def test_a_killed_chat_leaves_no_server(tiny_folder: Path) -> None:
    with at_a_terminal(str(tiny_folder)) as keyboard:
        while not (children := psutil.Process(keyboard.process.pid).children()):
            time.sleep(0.05)
        keyboard.process.kill()
        assert psutil.wait_procs(children, timeout=SECONDS)[1] == []


def test_a_model_that_cannot_be_loaded_is_told_with_the_reason(tmp_path: Path) -> None:
    ended = call("chat", str(tmp_path), stdin="Hello!\n")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(f"model-compose: {tmp_path.name} cannot be served: ")
    assert "Traceback" not in ended.stderr


def test_a_server_that_is_not_there_is_told_in_one_line() -> None:
    ended = call("chat", "--url", f"http://127.0.0.1:{a_free_port()}/v1", stdin="Hello!\n")
    assert ended.returncode == 1
    assert ended.stderr.startswith("model-compose: no server answers at http://127.0.0.1:")
    assert ended.stderr.count("\n") == 1


def test_a_model_that_a_server_does_not_have_is_told_with_those_it_has(talker: Talker) -> None:
    ended = call("chat", "no/such", "--url", talker.url, stdin="Hello!\n")
    assert ended.returncode == 2
    assert ended.stderr == f"model-compose: no model 'no/such' at {talker.url}; it has: parrot\n"


def test_an_error_of_the_server_is_told_in_its_own_words(talker: Talker) -> None:
    ended = call("chat", "--url", talker.url, stdin="word " * 20_000)
    assert ended.returncode == 1
    assert "maximum context length" in ended.stderr
    assert "Traceback" not in ended.stderr
