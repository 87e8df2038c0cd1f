"""What `up` says once it serves: the URL, the models, and a line to try."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..adapters.base import ModelCard
from ..adapters.runs import InputCard, Runs
from ..workflows import library

PROMPT = "Explain quantum computing in simple terms."


def greeting(version: str, files: Sequence[Path], models: Sequence[str]) -> str:
    """The line for the start: what is read, and what has to be loaded."""
    read = " and ".join(str(file) for file in files)
    loading = f"is loading {', '.join(models)}" if models else "is starting"
    return f"model-compose {version} {loading}" + (f" for {read}" if read else "") + " ..."


def announcement(
    url: str, cards: Sequence[ModelCard], seconds: float, *, has_key: bool, runs: Runs | None = None
) -> Iterator[tuple[str, str]]:
    """The lines, each with its style; `url` is the server's, without `/v1`; one of `cards` at least is not failed."""
    workflows = {} if runs is None else {each.model: each for each in runs.workflows()}
    usable = [card for card in cards if card.state.phase != "failed"]
    yield "", ""
    yield f"Ready after {seconds:.1f} s: {url}/v1", "bold green"
    yield "", ""
    width = max(len(card.id) for card in usable)
    for card in usable:
        about = f"workflow  {workflows[card.id].title or ''}" if card.id in workflows else _facts(card)
        yield f"  {card.id:{width}}  {about}".rstrip(), ""
    yield "", ""
    yield "Try it in another terminal:", ""
    yield "", ""
    yield f"  {curl_line(url, usable[0].id, has_key=has_key)}", "cyan"
    command = _own_name()
    if command is not None and runs is not None:
        yield "", ""
        yield f"  {command} {run_line(runs)}", "cyan"
    if command is not None:
        yield "", ""
        yield f"  {command} chat" + ("" if url.endswith(":8080") else f" --url {url}/v1"), "cyan"
    yield "", ""
    if runs is None:
        yield "Workflows that come with the program, to be served with -f NAME:", ""
        yield "", ""
        yield from ((f"  {name:22} {library.about(name)}", "") for name in library.names())
        yield "", ""
    if has_key:
        yield "Clients need the key; the lines above take it from the environment variable MODEL_COMPOSE_API_KEY.", ""
    yield "Ctrl-C or 'model-compose down' stops the server.", ""


def curl_line(url: str, model: str, *, has_key: bool) -> str:
    """A line for a POSIX shell that streams an answer."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": PROMPT}]}
    words = ["curl", "-N", f"{url}/v1/chat/completions", "-H", "Content-Type: application/json"]
    key = ' -H "Authorization: Bearer $MODEL_COMPOSE_API_KEY"' if has_key else ""
    return f"{shlex.join(words)}{key} -d {shlex.quote(json.dumps(body, ensure_ascii=False))}"


def run_line(runs: Runs) -> str:
    """The arguments that run the default workflow, or the first one."""
    cards = runs.workflows()
    chosen = next((card for card in cards if card.default), cards[0])
    given = {each.name: _example(each) for each in runs.inputs(chosen.workflow_id) if each.required}
    words = ["run", *([] if chosen.default else [chosen.workflow_id])]
    return shlex.join([*words, *(["--input", json.dumps(given, ensure_ascii=False)] if given else [])])


def _example(each: InputCard) -> object:
    """A value of an input's type."""
    examples: dict[str, object] = {"number": 0.7, "integer": 1, "boolean": True, "list": [], "object": {}}
    return examples.get(each.type, PROMPT)


def _facts(card: ModelCard) -> str:
    context = [f"{card.context_length:,} tokens of context"] if card.context_length else []
    return ", ".join([*context, *([card.state.detail] if card.state.detail else [])])


def _own_name() -> str | None:
    """How to call this program from the same folder; None if it was not called by its name."""
    called = Path(sys.argv[0])
    if called.stem != "model-compose":
        return None
    found = shutil.which("model-compose")
    is_on_the_path = found is not None and Path(found).resolve() == called.resolve()
    return "model-compose" if is_on_the_path else shlex.quote(str(called))
