"""A run of a workflow as the page shows it, while it goes on."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from html import escape
from typing import Any

import msgspec

from ...adapters.runs import FieldPiece, JobCard, JobNews, JsonPiece, TextPiece
from .api import Began, Ended, Refused, Server, Told
from .diagram import STATES
from .forms import readable
from .markup import copy_button, json_block, markdown, plain
from .pause import Pause

_LOOKS_LIKE_MARKDOWN = re.compile(r"^(?:#{1,6} |[-*+] |\d+[.)] |> |```|\|.*\|\s*$)|\*\*\S|`\S[^`]*`|\]\(", re.MULTILINE)


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """A run at one moment; `took` and the jobs' times are in seconds."""

    jobs: tuple[str, ...]
    state: str = "processing"
    task: str = ""
    states: dict[str, str] = {}
    began: dict[str, float] = {}
    times: dict[str, float] = {}
    text: str = ""
    field: str = ""
    items: tuple[Any, ...] = ()
    output: Any = None
    error: str = ""
    took: float = 0.0

    @property
    def is_over(self) -> bool:
        return self.state != "processing"

    def told(self, told: Told, now: float) -> Progress:
        """What it is after one more piece of news."""
        return msgspec.structs.replace(self, **self._news(told, now), took=now)

    def _news(self, told: Told, now: float) -> dict[str, Any]:
        match told:
            case Began():
                return {"task": told.task}
            case JobNews(job=job, status="processing"):
                return {"states": {**self.states, job: "processing"}, "began": {**self.began, job: now}}
            case JobNews(job=job, status=status):
                passed = now - self.began.get(job, now)
                return {"states": {**self.states, job: status}, "times": {**self.times, job: passed}}
            case TextPiece(text=text):
                return {"text": self.text + text}
            case FieldPiece(field=field, text=text):
                return {"text": self.text + text, "field": field}
            case JsonPiece(value=value):
                return {"items": (*self.items, value)}
            case Ended(error=""):
                # A job whose output is a stream is done only when that is.
                times = {job: now - began for job, began in self.began.items()} | self.times
                states = dict.fromkeys(self.jobs, "completed")
                return {"state": "completed", "output": told.output, "states": states, "times": times}
            case Ended():
                ended = {job: "failed" if job == told.job else "cancelled" for job in self.jobs}
                done = {job: state for job, state in self.states.items() if state == "completed"}
                return {"state": "failed", "error": told.error, "states": {**ended, **done}}

    def cancelled(self, now: float) -> Progress:
        """It was ended by the person at the page."""
        done = {job: state for job, state in self.states.items() if state == "completed"}
        states = {**dict.fromkeys(self.jobs, "cancelled"), **done}
        return msgspec.structs.replace(self, state="cancelled", states=states, took=now)


async def progress(
    server: Server, workflow: str, given: dict[str, Any], jobs: Sequence[JobCard], key: str, stop: asyncio.Event
) -> AsyncGenerator[Progress]:
    """A run as it goes on, a few times a second, and at last as it is in the end. `stop` ends it, at the server too."""
    began = time.monotonic()
    now = Progress(jobs=tuple(job.id for job in jobs), states=dict.fromkeys((job.id for job in jobs), "pending"))

    async def read() -> None:
        nonlocal now
        async with aclosing(server.run(workflow, given, key)) as news:
            async for told in news:
                now = now.told(told, time.monotonic() - began)

    reading, stopping = asyncio.create_task(read()), asyncio.create_task(stop.wait())
    try:
        pause = Pause()
        while not reading.done() and not stopping.done():
            with pause.measured():
                yield msgspec.structs.replace(now, took=time.monotonic() - began)
            await asyncio.wait({reading, stopping}, timeout=pause.seconds, return_when=asyncio.FIRST_COMPLETED)
        if stopping.done() and now.task and not reading.done():
            with suppress(Refused):  # closing the connection ends the run as well
                await server.cancel(now.task, key)
    finally:
        stopping.cancel()
        reading.cancel()
        await asyncio.wait({reading, stopping})
    passed = time.monotonic() - began
    if reading.cancelled() or (stopping.done() and not stopping.cancelled()):
        yield now.cancelled(passed)
    elif isinstance(error := reading.exception(), Refused):
        yield now.told(Ended(error=str(error)), passed)
    elif error is not None:
        raise error
    else:
        yield now


def jobs_shown(progress: Progress) -> str:
    """How far each job is, as a list."""
    rows = "".join(
        f'<li class="{state}"><span class="dot {state}" aria-hidden="true"></span>{escape(job)}'
        f"<small>{STATES.get(state, state)}{_seconds(progress.times.get(job))}</small></li>"
        for job in progress.jobs
        if (state := progress.states.get(job, "pending"))
    )
    return f'<ul class="rows jobs" aria-label="Progress of the jobs">{rows}</ul>'


def _seconds(passed: float | None) -> str:
    return "" if passed is None else f", {passed:.1f} s"


def result(progress: Progress) -> str:
    """What has come of it so far, in the form that fits it."""
    parts = [f'<p class="run-state {progress.state}" role="status">{_headline(progress)}</p>']
    if progress.error:
        parts.append(f'<div class="error" role="alert"><strong>The run failed</strong>{plain(progress.error)}</div>')
    if progress.state == "completed":
        parts.append(value_shown(progress.output))
    elif progress.items:
        parts.append(json_block(list(progress.items)))
    elif progress.text:
        parts.append(value_shown({progress.field: progress.text} if progress.field else progress.text))
    return "".join(parts)


def _headline(progress: Progress) -> str:
    words = {"processing": "Runs", "completed": "Done", "failed": "Failed", "cancelled": "Cancelled"}
    passed = f"{progress.took:.1f} s"
    return f"{words[progress.state]} {'for' if progress.state == 'processing' else 'after'} {passed}"


def value_shown(value: Any) -> str:
    """An output: a text as text or Markdown, texts under their names, all else as JSON."""
    if isinstance(value, str):
        return f'<div class="output">{copy_button(value, "Copy the output")}{text_shown(value)}</div>'
    if isinstance(value, dict) and value and all(isinstance(each, str) for each in value.values()):
        return "".join(f"<h3>{escape(readable(str(name)))}</h3>{value_shown(each)}" for name, each in value.items())
    return json_block(value)


def text_shown(text: str) -> str:
    """A text: JSON or Markdown if it looks like that, else as it stands."""
    stripped = text.strip()
    if stripped[:1] in {"{", "["} and (found := _parsed(stripped)) is not None:
        return json_block(found)
    return markdown(text) if _LOOKS_LIKE_MARKDOWN.search(text) else plain(text)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
