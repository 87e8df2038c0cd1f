"""Values that come in pieces: a model's answer, or the items of an HTTP answer.

A stream is one leaf in a tree of JSON values. It can be read once: as `parts` (what its source gives), as `items` (what
the runs API sends) or as its whole `value`. `through` is the same stream read from somewhere else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

from ...adapters.events import CompletedChoice, Event, TextDelta, collect
from ..references import as_text

Form = Literal["text", "json"]


@dataclass(frozen=True, slots=True)
class ModelStream:
    """A model's answer: `n` choices for each of `prompts`, which go before the text of the value.

    `prompts` are empty texts where the answer does not repeat them. `is_list` says that a list of prompts was given, so
    that the value is a list even for one. `form` is None unless the file says that this is to be sent as a stream.
    """

    parts: AsyncGenerator[Event]
    prompts: tuple[str, ...] = ("",)
    n: int = 1
    is_list: bool = False
    form: Form | None = None

    @property
    def choices(self) -> int:
        """How many answers there are in all."""
        return len(self.prompts) * self.n

    def through(self, parts: AsyncGenerator[Event]) -> ModelStream:
        """The same stream, read from `parts`."""
        return dataclasses.replace(self, parts=parts)

    def declared(self, form: Form) -> ModelStream:
        """The same stream, to be sent as one; several answers cannot be."""
        return self if self.choices > 1 or self.is_list else dataclasses.replace(self, form=form)

    def text(self, part: Event) -> str:
        """What a part adds to the first answer's text."""
        return part.text if isinstance(part, TextDelta) and part.choice == 0 else ""

    async def items(self) -> AsyncGenerator[str]:
        """The first answer's text, piece by piece, the prompt first."""
        if self.prompts[0]:
            yield self.prompts[0]
        async with aclosing(self.parts) as parts:
            async for part in parts:
                if text := self.text(part):
                    yield text

    async def value(self) -> Any:
        """A text; a list of them if there are several answers or prompts; a list of lists if both."""
        async with aclosing(self.parts) as parts:
            completion = await collect(parts)
        answers = [_whole(choice) for choice in completion.choices]
        answers += [""] * (self.choices - len(answers))
        by_prompt = [
            [_after(prompt, answer) for answer in answers[index * self.n : (index + 1) * self.n]]
            for index, prompt in enumerate(self.prompts)
        ]
        values = [texts if self.n > 1 else texts[0] for texts in by_prompt]
        return values if self.is_list else values[0]


@dataclass(frozen=True, slots=True)
class ItemStream:
    """The items of an HTTP answer; `form` None leaves open whether they add up to a text."""

    parts: AsyncGenerator[Any]
    form: Form | None = None

    def through(self, parts: AsyncGenerator[Any]) -> ItemStream:
        """The same stream, read from `parts`."""
        return dataclasses.replace(self, parts=parts)

    def declared(self, form: Form) -> ItemStream:
        """The same stream, to be sent in this form."""
        return dataclasses.replace(self, form=form)

    def text(self, part: Any) -> str:
        """An item as text."""
        return as_text(part)

    def items(self) -> AsyncGenerator[Any]:
        """The items themselves."""
        return self.parts

    async def value(self) -> Any:
        """All the text if the items are texts, else their list."""
        async with aclosing(self.parts) as parts:
            items = [part async for part in parts]
        if self.form == "text" or (items and self.form is None and all(isinstance(item, str) for item in items)):
            return "".join(map(as_text, items))
        return items


Stream = ModelStream | ItemStream


def is_sent_as_stream(value: Any) -> bool:
    """Whether the runs API sends this outcome piece by piece."""
    return isinstance(value, ItemStream) or (isinstance(value, ModelStream) and value.form is not None)


def streams_in(value: Any) -> Iterator[Stream]:
    """The streams that are leaves of a tree."""
    match value:
        case ModelStream() | ItemStream():
            yield value
        case list():
            for item in value:
                yield from streams_in(item)
        case dict():
            for item in value.values():
                yield from streams_in(item)


def stream_in(value: Any) -> Stream | None:
    """The stream of a tree, if it has one."""
    return next(streams_in(value), None)


def put_for(stream: Stream, replacement: Any, tree: Any) -> Any:
    """`tree` with `replacement` in the place of `stream`."""
    match tree:
        case ModelStream() | ItemStream():
            return replacement if tree.parts is stream.parts else tree
        case list():
            return [put_for(stream, replacement, item) for item in tree]
        case dict():
            return {key: put_for(stream, replacement, item) for key, item in tree.items()}
        case _:
            return tree


async def gathered(tree: Any) -> Any:
    """`tree` with the whole value of its stream in the stream's place."""
    stream = stream_in(tree)
    return tree if stream is None else put_for(stream, await stream.value(), tree)


async def replay(parts: Iterable[Any]) -> AsyncGenerator[Any]:
    """Parts that are there already."""
    for part in parts:
        yield part


async def closing(events: AsyncIterator[Event]) -> AsyncGenerator[Event]:
    """`events`, closed when this is closed."""
    try:
        async for event in events:
            yield event
    finally:
        if isinstance(events, AsyncGenerator):
            await events.aclose()


def _after(prompt: str, answer: Any) -> Any:
    return prompt + answer if isinstance(answer, str) else answer


def _whole(choice: CompletedChoice) -> Any:
    """A choice's text; with its calls, as OpenAI writes them, if it has some."""
    if not choice.tool_calls:
        return choice.text
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in choice.tool_calls
    ]
    return {"role": "assistant", "content": choice.text or None, "tool_calls": calls}
