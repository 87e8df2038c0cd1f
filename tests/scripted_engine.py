"""An engine process without a model: it starts in a fraction of a second, and its model's source says how it behaves.

    loads_in=0.5    takes so many seconds to load
    lock=FILE       needs the memory that one process at a time can have, for as long as it lives
    broken          cannot be loaded
    rests_after=0.5 rests after so many seconds with nothing to do

Several are joined by `;`. `scripted_engines` makes adapters start this program in place of the real one.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelcompose.adapters.base import GenerationRequest, ModelCounters, ModelState
from modelcompose.adapters.errors import ConfigError, OutOfMemory
from modelcompose.adapters.events import Accepted, Finish, TextDelta, Usage
from modelcompose.adapters.transformers import process
from modelcompose.adapters.transformers.messages import Launch, Outcome, State


class ScriptedEngine:
    """Answers `hi`, or nothing at all to a request with the seed 0; `kept` is what it needs for as long as it lives."""

    def __init__(self, kept: object) -> None:
        self._kept = kept
        self._outcomes: list[tuple[int, Outcome]] = []
        self._answered = 0

    @property
    def is_idle(self) -> bool:
        return not self._outcomes

    @property
    def counters(self) -> ModelCounters:
        return ModelCounters(requests=self._answered, generated_tokens=self._answered)

    def add(self, id: int, request: GenerationRequest) -> None:
        answer: list[Outcome] = [Accepted(), TextDelta("hi"), Finish("stop"), Usage(1, 1)]
        self._answered += 1
        self._outcomes += [(id, each) for each in (answer[:1] if request.sampling.seed == 0 else answer)]

    def cancel(self, id: int) -> None:
        """It is done at once with whatever it does."""

    def rest(self) -> None:
        print("it rests", file=sys.stderr, flush=True)

    def step(self) -> list[tuple[int, Outcome]]:
        outcomes, self._outcomes = self._outcomes, []
        return outcomes


@pytest.fixture
def scripted_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapters start this program in place of the engine."""
    program = tmp_path / "python"
    paths = os.pathsep.join(sys.path)
    program.write_text(f"#!/bin/sh\nPYTHONPATH={shlex.quote(paths)} exec {shlex.quote(sys.executable)} -B {__file__}\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))


def _loaded(options: dict[str, str]) -> Any:
    """Whatever has to be kept for as long as the model is loaded."""
    if "broken" in options:
        raise ConfigError("it is broken")
    time.sleep(float(options.get("loads_in", 0)))
    if "lock" not in options:
        return None
    file = Path(options["lock"]).open("w")  # noqa: SIM115 (open until the process ends)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise OutOfMemory("another has the memory") from None
    return file


def main() -> None:
    launch = msgspec.json.decode(sys.stdin.buffer.readline(), type=Launch)
    options = dict(each.partition("=")[::2] for each in launch.settings.source.split(";"))
    process.SECONDS_TO_REST = float(options.get("rests_after", process.SECONDS_TO_REST))
    line = process.Line(launch)
    threading.Thread(target=process._end_with_the_server, args=[launch.address], daemon=True).start()

    def report(state: ModelState) -> None:
        line.send(State(state))

    report(ModelState("loading", "as scripted"))
    try:
        kept = process.when_it_fits(lambda: _loaded(options), report, launch.memory_patience)
    except (ConfigError, OutOfMemory) as error:
        line.send(State(ModelState("failed", error.message), failure=error.report()))
        line.close()
        sys.exit(process.LOAD_FAILED)
    line.send(State(ModelState("ready"), context_length=100))
    process.serve(ScriptedEngine(kept), line)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
