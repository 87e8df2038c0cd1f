"""Tokens -> text, as they come: never half a character, and the same work for every token."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol

from transformers import PreTrainedTokenizerBase

# What an unfinished text ends with: a character that still lacks bytes; a word that goes on (old BPE vocabularies).
UNFINISHED = ("\N{REPLACEMENT CHARACTER}", "@@")
# No character has more bytes than this, so a text that is unfinished after as many tokens will stay so.
MOST_HELD = 4


class Detokenizer(Protocol):
    """Makes the text of a sequence out of its tokens."""

    def feed(self, token_id: int) -> str:
        """The text that one more token makes final; empty while a character is incomplete."""
        ...

    def finish(self) -> str:
        """What is left: U+FFFD for an incomplete character."""
        ...


class Vocabulary:
    """What each token of a tokenizer stands for; made once for a model."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._added = {token: text.content.encode() for token, text in tokenizer.added_tokens_decoder.items()}
        self._is_byte_level = _is_byte_level(tokenizer)
        self.special_ids = frozenset(tokenizer.all_special_ids) | {
            token for token, text in tokenizer.added_tokens_decoder.items() if text.special
        }
        self.token_bytes = lru_cache(maxsize=65536)(self._token_bytes)

    def detokenizer(self, before: Sequence[int] = ()) -> Detokenizer:
        """A new sequence; `before` are the tokens its first one continues, so that a space between them is kept."""
        return _Bytes(self) if self._is_byte_level else _Window(self._tokenizer, before)

    def special_ids_of(self, texts: Iterable[str]) -> frozenset[int]:
        """The special tokens among these texts, such as a stop string that is one token."""
        wanted = {text.encode() for text in texts}
        return (
            frozenset(token for token in self.special_ids if self._added.get(token) in wanted)
            if wanted
            else frozenset()
        )

    def token_text(self, token_id: int) -> str:
        r"""The token alone, as logprobs show it; bytes that are no text are written as `\xNN`."""
        return self.token_bytes(token_id).decode("utf-8", "backslashreplace")

    def _token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to a text."""
        if token_id in self._added:
            return self._added[token_id]
        token = self._tokenizer.convert_ids_to_tokens(token_id)
        if not isinstance(token, str):
            return b""
        if self._is_byte_level:
            return _byte_level_bytes(token)
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes([int(token[3:5], 16)])
        return token.replace("\N{LOWER ONE EIGHTH BLOCK}", " ").encode()


class _Bytes:
    """Byte-level vocabularies: tokens are bytes, text is their UTF-8."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._bytes = vocabulary.token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token_id: int) -> str:
        return self._decoder.decode(self._bytes(token_id))

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


class _Window:
    """Any other tokenizer: its own `decode`, on the last few tokens with and without the newest ones."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, before: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._known = list(before[-MOST_HELD:])
        self._new: list[int] = []

    def feed(self, token_id: int) -> str:
        self._new.append(token_id)
        text = self._text()
        if text.endswith(UNFINISHED) and len(self._new) < MOST_HELD:
            return ""
        self._known, self._new = self._new, []
        return text

    def finish(self) -> str:
        text = self._text()
        self._new = []
        return text

    def _text(self) -> str:
        if not self._new:
            return ""
        return self._decode([*self._known, *self._new])[len(self._decode(self._known)) :]

    def _decode(self, token_ids: list[int]) -> str:
        text = self._tokenizer.decode(token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text


def _is_byte_level(tokenizer: PreTrainedTokenizerBase) -> bool:
    if not tokenizer.is_fast:
        return False
    decoder: dict[str, Any] | None = json.loads(tokenizer.backend_tokenizer.to_str())["decoder"]
    return decoder is not None and decoder["type"] == "ByteLevel"


@lru_cache(maxsize=1)
def _byte_of_character() -> dict[str, int]:
    """GPT-2's table: printable bytes stand for themselves, the others for the characters from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


def _byte_level_bytes(token: str) -> bytes:
    table = _byte_of_character()
    try:
        return bytes(table[character] for character in token)
    except KeyError:
        return token.encode()
