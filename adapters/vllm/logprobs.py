"""Logprobs in the two shapes that OpenAI's API has for them, as `TokenLogprob`s. Pure."""

from __future__ import annotations

from typing import Any

from ..events import TokenLogprob, TopLogprob


def of_chat(value: Any) -> tuple[TokenLogprob, ...] | None:
    """Those of a chat completion: a list of objects, each with the likeliest tokens."""
    content = value.get("content") if isinstance(value, dict) else None
    if not isinstance(content, list):
        return None
    return tuple(
        TokenLogprob(
            str(each["token"]),
            _number(each.get("logprob")),
            _raw(each),
            tuple(
                TopLogprob(str(top["token"]), logprob, _raw(top))
                for top in each.get("top_logprobs") or ()
                if (logprob := _number(top.get("logprob"))) is not None
            ),
        )
        for each in content
        if isinstance(each, dict) and "token" in each
    )


def of_text(value: Any) -> tuple[TokenLogprob, ...] | None:
    """Those of a text completion: lists of equal length."""
    if not isinstance(value, dict) or not isinstance(tokens := value.get("tokens"), list):
        return None
    logprobs = value.get("token_logprobs") or [None] * len(tokens)
    tops = value.get("top_logprobs") or [None] * len(tokens)
    return tuple(
        TokenLogprob(str(token), _number(logprob), str(token).encode(), _likeliest(top))
        for token, logprob, top in zip(tokens, logprobs, tops, strict=False)
    )


def _likeliest(top: Any) -> tuple[TopLogprob, ...]:
    pairs = top.items() if isinstance(top, dict) else ()
    found = [(text, number) for text, value in pairs if (number := _number(value)) is not None]
    return tuple(TopLogprob(text, logprob, text.encode()) for text, logprob in sorted(found, key=lambda pair: -pair[1]))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _raw(token: dict[str, Any]) -> bytes:
    """A token's bytes; of a server that does not tell them, those of its text."""
    given = token.get("bytes")
    is_bytes = isinstance(given, list) and all(isinstance(each, int) and 0 <= each < 256 for each in given)
    return bytes(given) if is_bytes and given is not None else str(token["token"]).encode()
