"""Which conversations belong together, so that a server finds the beginning of a prompt in its cache. Pure."""

from __future__ import annotations

import hashlib

import msgspec

LONGEST_BEGINNING = 4096
"""Bytes of a beginning that are looked at."""


class _Beginning(msgspec.Struct):
    prompt_cache_key: str | None = None
    messages: msgspec.Raw = msgspec.Raw(b"")
    prompt: msgspec.Raw = msgspec.Raw(b"")


class _Role(msgspec.Struct):
    role: str = ""


_beginning = msgspec.json.Decoder(_Beginning)
_messages = msgspec.json.Decoder(list[msgspec.Raw])
_role = msgspec.json.Decoder(_Role)


def key_of(body: bytes) -> bytes | None:
    """What requests have in common that belong together: `prompt_cache_key`, or else how they begin, which is
    everything up to the first message of a user, or a prompt's first bytes.
    """
    try:
        begins = _beginning.decode(body)
        if begins.prompt_cache_key:
            return begins.prompt_cache_key.encode()
        if begins.messages:
            return _up_to_first_user(_messages.decode(begins.messages))
        return bytes(begins.prompt)[:LONGEST_BEGINNING] or None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _up_to_first_user(messages: list[msgspec.Raw]) -> bytes:
    parts: list[bytes] = []
    for message in messages:
        parts.append(bytes(message)[:LONGEST_BEGINNING])
        if _role.decode(message).role == "user":
            break
    return b"".join(parts)


def rank(key: bytes, server: str) -> bytes:
    """How well a server suits a key, by rendezvous hashing: every front finds the same order, and a server that comes
    or goes moves only its own conversations.
    """
    return hashlib.blake2b(key, digest_size=8, key=hashlib.blake2b(server.encode(), digest_size=32).digest()).digest()
