"""A conversation as the page keeps it: turns, answers as they grow, and the request that asks for the next. Pure.

Conversation   the turns so far, kept in the browser
Turn           what a person said, and the answer
Answer         one answer: its text, its thinking, its tool calls, its figures
Growing        an answer while its chunks arrive
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

STOPPED = "stopped"
"""How an answer ended that a person did not want to the end."""


class Call(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tool that the model calls."""

    id: str = ""
    name: str = ""
    arguments: str = ""


class Answer(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An answer. Times are in seconds; `first` goes from the request to the first token, `took` to the last.

    `error` is why there is no more of it; `is_whole` is False while it grows.
    """

    model: str
    text: str = ""
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    error: str = ""
    finish: str = ""
    prompt_tokens: int = 0
    tokens: int = 0
    first: float | None = None
    thought: float | None = None
    took: float = 0.0
    is_whole: bool = True

    @property
    def speed(self) -> float | None:
        """Tokens a second, from the first token on."""
        if self.first is None or self.tokens < 2 or self.took <= self.first:
            return None
        return (self.tokens - 1) / (self.took - self.first)

    @property
    def is_begun(self) -> bool:
        return bool(self.text or self.reasoning or self.calls)

    @property
    def cut(self) -> Answer:
        """What it is if no more of it comes."""
        return msgspec.structs.replace(self, is_whole=True, finish=STOPPED)


class Turn(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a person said and what was answered; `is_result` if it is what a tool gave."""

    said: str
    answer: Answer | None = None
    is_result: bool = False

    @property
    def is_over(self) -> bool:
        return self.answer is None or self.answer.is_whole

    @property
    def is_answered(self) -> bool:
        return self.answer is not None and bool(self.answer.text or self.answer.calls)


class Conversation(msgspec.Struct, frozen=True, omit_defaults=True):
    """The turns so far."""

    turns: tuple[Turn, ...] = ()

    def say(self, text: str) -> Conversation:
        """The conversation with one more message; after a tool call it is what the tool gave."""
        last = self.turns[-1].answer if self.turns else None
        return Conversation((*self.turns, Turn(text, is_result=last is not None and bool(last.calls))))

    def edit(self, index: int, text: str) -> Conversation:
        """The conversation up to that message, which now says something else."""
        return Conversation((*self.turns[:index], Turn(text, is_result=self.turns[index].is_result)))

    def again(self, index: int) -> Conversation:
        """The conversation up to that message, to be answered once more."""
        return self.edit(index, self.turns[index].said)

    def answered(self, answer: Answer) -> Conversation:
        """The conversation with that answer to its last message."""
        last = msgspec.structs.replace(self.turns[-1], answer=answer)
        return Conversation((*self.turns[:-1], last))

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages as OpenAI has them, without those to which nothing was answered but for the last."""
        found: list[dict[str, Any]] = []
        calls: tuple[Call, ...] = ()
        for turn in (*(turn for turn in self.turns[:-1] if turn.is_answered), *self.turns[-1:]):
            if turn.is_result and calls:
                found += [{"role": "tool", "tool_call_id": call.id, "content": turn.said} for call in calls]
            else:
                found.append({"role": "user", "content": turn.said})
            answer = turn.answer
            calls = () if answer is None else answer.calls
            if answer is not None and turn.is_answered:
                found.append(_message(answer))
        return found


def _message(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None}
    if answer.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.calls
        ]
    return message


class Choices(msgspec.Struct, frozen=True, omit_defaults=True):
    """The model, and what the side panel says; None leaves a choice to the model. Numbers are as they were typed."""

    model: str = ""
    system: str = ""
    temperature: int | float | None = None
    top_p: int | float | None = None
    max_tokens: int | float | None = None
    seed: int | float | None = None
    stop: str = ""
    tools: str = ""

    @property
    def system_messages(self) -> list[dict[str, Any]]:
        return [{"role": "system", "content": self.system}] if self.system.strip() else []

    def body(self, conversation: Conversation) -> dict[str, Any]:
        """The request for the next answer; raises ValueError if the tools are no JSON list."""
        body: dict[str, Any] = {"model": self.model, "messages": [*self.system_messages, *conversation.messages]}
        for name in ("temperature", "top_p", "max_tokens", "seed"):
            if (value := getattr(self, name)) is not None:
                body[name] = value
        if stops := [line for line in self.stop.splitlines() if line]:
            body["stop"] = stops
        if self.tools.strip():
            body["tools"] = _tools(self.tools)
        return body


def _tools(text: str) -> list[Any]:
    try:
        tools = json.loads(text)
    except ValueError as error:
        raise ValueError(f"the tools are no JSON: {error}") from None
    if not isinstance(tools, list):
        raise ValueError("the tools have to be a JSON list, as OpenAI writes them")  # noqa: TRY004 (a wrong value)
    return tools


class Growing:
    """An answer while the chunks of its stream arrive."""

    def __init__(self, model: str, began: float) -> None:
        """`began` is when it was asked for; all times are of one clock."""
        self._answer = Answer(model=model, is_whole=False)
        self._began = began

    @property
    def answer(self) -> Answer:
        return self._answer

    def feed(self, chunk: dict[str, Any], now: float) -> None:
        """Take a chunk of `/v1/chat/completions`."""
        if "error" in chunk:
            self.fail(str((chunk["error"] or {}).get("message") or "the server failed"), now)
            return
        before = self._answer
        for choice in chunk.get("choices") or ():
            self._take(choice.get("delta") or {}, choice.get("finish_reason"))
        usage = chunk.get("usage") or {}
        self._set(
            prompt_tokens=usage.get("prompt_tokens") or self._answer.prompt_tokens,
            tokens=usage.get("completion_tokens") or self._answer.tokens,
        )
        after = self._answer
        if (after.text, after.reasoning, after.calls) != (before.text, before.reasoning, before.calls):
            self._time(now - self._began)

    def fail(self, why: str, now: float) -> None:
        """End with an error."""
        self._set(error=why, took=now - self._began, is_whole=True)

    def end(self, now: float, *, is_stopped: bool = False) -> None:
        """End, also in the middle."""
        answer = self._answer
        if not (answer.is_begun or answer.error or answer.finish or is_stopped):
            self._set(error="the server closed the connection without an answer")
        self._set(is_whole=True, took=answer.took or now - self._began)
        if is_stopped:
            self._answer = self._answer.cut

    def _take(self, delta: dict[str, Any], finish: str | None) -> None:
        thought = delta.get("reasoning_content") or delta.get("reasoning") or ""
        calls = list(self._answer.calls)
        for piece in delta.get("tool_calls") or ():
            index, function = piece.get("index", 0), piece.get("function") or {}
            calls += [Call()] * (index + 1 - len(calls))
            old = calls[index]
            calls[index] = Call(
                old.id or piece.get("id") or "",
                old.name or function.get("name") or "",
                old.arguments + (function.get("arguments") or ""),
            )
        self._set(
            text=self._answer.text + (delta.get("content") or delta.get("refusal") or ""),
            reasoning=self._answer.reasoning + thought,
            calls=tuple(calls),
            finish=finish or self._answer.finish,
        )

    def _time(self, passed: float) -> None:
        answer = self._answer
        self._set(took=passed, first=passed if answer.first is None else answer.first)
        if answer.reasoning and answer.thought is None and (answer.text or answer.calls):
            self._set(thought=passed - (self._answer.first or 0.0))

    def _set(self, **fields: Any) -> None:
        self._answer = msgspec.structs.replace(self._answer, **fields)
