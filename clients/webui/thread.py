"""A conversation as HTML. Pure."""

from __future__ import annotations

from functools import lru_cache
from html import escape

from .conversation import STOPPED, Answer, Call, Conversation, Turn
from .markup import button, code_block, copy_button, markdown, plain

_FINISHES = {"length": "cut at the longest allowed", STOPPED: "stopped", "content_filter": "filtered"}


def thread(conversation: Conversation) -> str:
    """The whole conversation, or what to do if there is none."""
    if not conversation.turns:
        return '<div class="nothing"><p>Ask something.</p><p>The conversation stays in this browser.</p></div>'
    last = len(conversation.turns) - 1
    return "".join(
        (_whole_turn if turn.is_over else _turn)(turn, index, index == last)
        for index, turn in enumerate(conversation.turns)
    )


def _turn(turn: Turn, index: int, is_last: bool) -> str:
    number = index + 1
    who = "Result of the tool" if turn.is_result else "You"
    said = (
        f'<article class="turn said" data-index="{index}" aria-label="{who}, message {number}">'
        f'<div class="bubble">{escape(turn.said)}</div><div class="acts">'
        f"{copy_button(turn.said, f'Copy message {number}')}{button('edit', f'Edit message {number}', 'edit')}"
        "</div></article>"
    )
    return said + ("" if turn.answer is None else _answer(turn.answer, index, is_last))


_whole_turn = lru_cache(maxsize=512)(_turn)


def _answer(answer: Answer, index: int, is_last: bool) -> str:
    number = index + 1
    name = escape(answer.model)
    parts = [
        _thinking(answer, index),
        markdown(answer.text) if answer.text else "",
        *(_call(call) for call in answer.calls),
    ]
    if answer.error:
        title = "The answer broke off" if answer.is_begun else "No answer"
        parts.append(f'<div class="error" role="alert"><strong>{title}</strong>{plain(answer.error)}</div>')
    if not answer.is_whole:
        parts.append('<span class="cursor" aria-hidden="true"></span>')
    acts = ""
    if answer.is_whole:
        copy = copy_button(answer.text, f"Copy answer {number}") if answer.text else ""
        again = button("again", f"Regenerate answer {number}", "again") if is_last else ""
        acts = f'<div class="foot"><span class="figures">{figures(answer)}</span>{copy}{again}</div>'
    return (
        f'<article class="turn answer{"" if answer.is_whole else " grows"}" data-index="{index}" '
        f'aria-label="{name}, answer {number}" aria-busy="{str(not answer.is_whole).lower()}">'
        f'<div class="who">{name}</div>{"".join(parts)}{acts}</article>'
    )


def _thinking(answer: Answer, index: int) -> str:
    if not answer.reasoning:
        return ""
    is_over = bool(answer.text or answer.calls or answer.is_whole)
    title = "Thinking" if not is_over else "Thought" + (f" for {answer.thought:.1f} s" if answer.thought else "")
    return (
        f'<details class="thinking" data-key="thinking-{index}"><summary>{title}</summary>'
        f"{markdown(answer.reasoning)}</details>"
    )


def _call(call: Call) -> str:
    name = escape(call.name)
    return (
        f'<div class="call"><div class="call-name">Calls <b>{name}</b></div>{code_block(call.arguments, "json")}</div>'
    )


def figures(answer: Answer) -> str:
    """Tokens, tokens a second and the time to the first token, as far as they are known."""
    parts = []
    if answer.tokens:
        parts.append(f"{answer.tokens:,} token{'s' if answer.tokens != 1 else ''}")
    if (speed := answer.speed) is not None:
        parts.append(f"{speed:.0f} tokens/s" if speed >= 10 else f"{speed:.1f} tokens/s")
    if answer.first is not None:
        parts.append(f"first after {answer.first:.2f} s")
    if answer.finish in _FINISHES:
        parts.append(_FINISHES[answer.finish])
    return " · ".join(parts)
