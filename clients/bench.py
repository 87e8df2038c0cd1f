"""`model-compose bench`: how fast a model or workflow answers many clients at once."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from ..adapters.errors import ComposeError, ConfigError, InvalidRequest, ModelUnavailable
from .asked import asked_server
from .bench_load import Load, ask
from .bench_report import Answer, Report
from .console import Console, explained, open_console
from .exit_codes import FAILED, INTERRUPTED, exit_code_of
from .run import read_input


class BenchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to ask, what, and how often; see the options of `model-compose bench`."""

    model: str | None = None
    url: str | None = None
    requests: int = 50
    concurrency: int = 8
    prompt: str = ""
    input: str | None = None
    max_tokens: int = 100
    as_json: bool = False
    api_key: str | None = None


def run(options: BenchOptions) -> int:
    """Measure and print; exit code 0, 1 if a request failed or no server could be had, 2 if what is asked is wrong.

    After Ctrl-C, which prints what was measured until then, it is 130.
    """
    console = open_console()
    try:
        body = _body(options)
        with asked_server(options.url, options.model, options.api_key, console) as (url, model):
            return _measure(_load(options, url, {**body, "model": model}), model, options, console)
    except ComposeError as error:
        console.say(explained(error), "red")
        return exit_code_of(error)
    except KeyboardInterrupt:
        return INTERRUPTED


def _body(options: BenchOptions) -> dict[str, Any]:
    given = {} if options.input is None else {"input": read_input(options.input)}
    if options.input is not None and not isinstance(given["input"], dict):
        raise ConfigError('--input is an object: {"name": "value"}')
    return {
        "messages": [{"role": "user", "content": options.prompt}],
        "max_tokens": options.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        **given,
    }


def _load(options: BenchOptions, url: str, body: dict[str, Any]) -> Load:
    headers = {"authorization": f"Bearer {options.api_key}"} if options.api_key else {}
    return Load(url, headers, body, options.requests, options.concurrency)


def _measure(load: Load, model: str, options: BenchOptions, console: Console) -> int:
    """Ask once for nothing, which warms the server up and shows what is wrong, then as often as is wanted."""
    answers: list[Answer] = []
    asyncio.run(ask(load._replace(requests=1), answers.append))
    first = answers.pop()
    if first.error is not None:
        kind = InvalidRequest if first.is_refused else ModelUnavailable
        raise kind(f"{model} cannot be measured: {first.error}")
    began, is_whole = time.perf_counter(), True
    try:
        with _counted(load.requests, answers) as note:
            asyncio.run(ask(load, note))
    except KeyboardInterrupt:
        is_whole = False
    report = Report(model, load.url, load.concurrency, time.perf_counter() - began, answers)
    print(json.dumps(report.figures(), indent=2) if options.as_json else report.table())
    if not is_whole:
        console.say(f"Stopped after {len(answers)} of {load.requests} requests.", "yellow")
        return INTERRUPTED
    return FAILED if report.errors else 0


@contextmanager
def _counted(total: int, answers: list[Answer]) -> Iterator[Callable[[Answer], None]]:
    """What notes an answer, and shows at a terminal how many there are."""
    if not sys.stderr.isatty():
        yield answers.append
        return
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, MofNCompleteColumn, Progress

    with Progress(BarColumn(), MofNCompleteColumn(), console=RichConsole(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)

        def note(answer: Answer) -> None:
            answers.append(answer)
            progress.advance(task)

        yield note
