"""The raw text of one choice -> events: the answer up to a stop string, the thinking, the tool calls. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from ..base import GenerationRequest
from ..events import Event, ReasoningDelta, TextDelta, TokenLogprob, ToolCallDelta
from ..text import StopStrings
from .logprobs import ShownText, WaitingLogprobs
from .prompt import EncodedPrompt
from .regions import Part, RegionReader
from .response_formats import CONTENT_FIELD, REASONING_FIELDS, TOOL_FIELD, ResponseFormat
from .tool_calls import CallPiece, ToolCallReader


class Answer:
    """What is shown of a choice. Stop strings are looked for in the answer itself, not in thinking or tool calls."""

    def __init__(
        self,
        request: GenerationRequest,
        prompt: EncodedPrompt,
        form: ResponseFormat | None,
        logprobs: WaitingLogprobs | None,
        choice: int,
    ) -> None:
        self._request = request
        self._logprobs = logprobs
        self._choice = choice
        self._stops = StopStrings((*request.sampling.stop, *prompt.stops))
        self._shown = ShownText(self._stops)
        takes_calls = bool(request.tools) and request.tool_choice != "none"
        self._reader = (
            None if form is None else RegionReader(form.whole if takes_calls else form.only_text, prompt.text)
        )
        self._trims = prompt.is_plain or form is not None  # white space before the answer is not shown
        self._space = ""  # white space that the thinking may end with
        self._has_thought = False
        self._region: ToolCallReader | None = None
        self._region_text = ""
        self.calls = 0
        self.is_cut = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be shown: a stop string was met, or the only tool call allowed is made."""
        return self._stops.stopped or self.is_cut

    @property
    def is_thinking(self) -> bool:
        field = self._reader.field if self._reader is not None else None
        return field is not None and field.name in REASONING_FIELDS

    def feed(self, text: str, end: int) -> list[Event]:
        """The events of more raw text, which ends at place `end`."""
        if not text or self.is_over:
            return []
        return self._say(text, end) if self._reader is None else self._parts(self._reader.feed(text))

    def finish(self, end: int) -> list[Event]:
        """What was held back, now that no more text comes."""
        if self.is_over:
            return []
        events = [] if self._reader is None else self._parts(self._reader.finish())
        if self._region is not None and not self.is_over:
            events += self._end_region(end)
        events += self._flush()
        if self._logprobs is not None and not self.is_over and (rest := self._logprobs.rest()):
            events.append(TextDelta("", self._choice, rest))
        return events

    def _parts(self, parts: Iterable[Part]) -> list[Event]:
        events: list[Event] = []
        for part in parts:
            if self.is_over:
                break
            events += self._part(part)
        return events

    def _part(self, part: Part) -> list[Event]:
        name = None if part.field is None else part.field.name
        if name == TOOL_FIELD:
            return self._tool(part)
        if part.kind == "text" and name in REASONING_FIELDS:
            return self._think(part)
        if part.kind == "text" and name == CONTENT_FIELD:
            return self._say(part.raw, part.end)
        if self._logprobs is not None:
            self._logprobs.drop(part.end - len(part.raw), part.end)
        if name in REASONING_FIELDS:
            self._space, self._has_thought, self._trims = "", False, True
        return []

    def _say(self, text: str, end: int) -> list[Event]:
        if self._trims:
            text = text.lstrip()
        if not text:
            return []
        self._trims = False
        return self._show(*self._shown.feed(text, end))

    def _flush(self) -> list[Event]:
        return [] if self._stops.stopped else self._show(*self._shown.finish())

    def _show(self, text: str, end: int) -> list[Event]:
        return [TextDelta(text, self._choice, self._take(end))] if text else []

    def _think(self, part: Part) -> list[Event]:
        """Thinking is shown without the white space around it."""
        text = self._space + part.raw if self._has_thought else part.raw.lstrip()
        shown = text.rstrip()
        self._space = text[len(shown) :]
        if not shown:
            return []
        self._has_thought = True
        return [ReasoningDelta(shown, self._choice, self._take(part.end - len(self._space)))]

    def _tool(self, part: Part) -> list[Event]:
        if part.kind == "open" and part.field is not None:
            is_marked = bool(part.raw.strip())
            self._region = ToolCallReader(part.field, part.captures, self._request.tools, is_marked=is_marked)
            self._region_text = part.raw
            return self._flush()
        if self._region is None:
            return []
        self._region_text += part.raw
        if part.kind == "close":
            return self._end_region(part.end)
        return self._call_deltas(self._region.feed(part.raw), part.end)

    def _end_region(self, end: int) -> list[Event]:
        """The calls of a region that is over; a region that holds none was text after all."""
        assert self._region is not None
        region, self._region = self._region, None
        try:
            events = self._call_deltas(region.finish(), end)
        except ValueError:
            return self._say(self._region_text, end)
        self.is_cut = not self._request.parallel_tool_calls
        return events

    def _call_deltas(self, pieces: Iterable[CallPiece], end: int) -> list[Event]:
        events: list[Event] = []
        for piece in pieces:
            if piece.name and self.calls and not self._request.parallel_tool_calls:
                break
            self.calls += bool(piece.name)
            identity = f"call_{secrets.token_hex(12)}" if piece.name else ""
            events.append(
                ToolCallDelta(self.calls - 1, identity, piece.name, piece.arguments, self._choice, self._take(end))
            )
        return events

    def _take(self, end: int) -> tuple[TokenLogprob, ...] | None:
        return None if self._logprobs is None else self._logprobs.take(end)
