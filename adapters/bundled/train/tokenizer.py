"""The tokenizer: whole words that stand in the vocabulary, single bytes for everything else.

There are no merges, so an unknown word is spelled out byte by byte, which is what lets a small model copy, reverse
and recall words that it never saw. A word stands in the vocabulary with a space in front of it and without one, so that
what was read in the middle of a line can be said again at the beginning of one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
MARKUP = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tools>", "</tools>")
SPACE = "Ġ"  # as byte-level tokenizers write it
WORD_PATTERN = r"'(?:s|t|re|ve|m|ll|d)\b| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\p{N}|\n| +(?= )|\s"
LONGEST_ABBREVIATION = 3
CONTEXT_LENGTH = 4096

CHAT_TEMPLATE = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")

RESPONSE_TEMPLATE: dict[str, Any] = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "reasoning_content": {"open_pattern": r"<think>\n?", "close_pattern": r"\n?</think>\n*", "content": "text"},
        "tool_calls": {
            "open_pattern": r"\n?<tool_call>\s*",
            "close_pattern": r"\s*</tool_call>",
            "content": "json",
            "repeats": True,
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close": ["<|im_end|>", "<|endoftext|>"], "content": "text"},
    },
}


def bytes_to_characters() -> dict[int, str]:
    """The printable character that byte-level tokenizers write for each byte (GPT-2's table)."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in kept]
    return {byte: chr(byte) for byte in kept} | {byte: chr(256 + n) for n, byte in enumerate(others)}


def words_of(text: str) -> list[str]:
    """The pieces that a text is cut into before the vocabulary is looked up, in byte-level characters."""
    return [piece for piece, _ in _pre_tokenizer().pre_tokenize_str(text)]


def forms(word: str) -> tuple[str, ...]:
    """A word in small letters with its space and without; a word in capitals in no form; anything else as it is.

    Words in capitals are spelled, so that their small letters can be told from them.
    """
    bare = word.removeprefix(SPACE)
    if bare.isascii() and bare.isalpha() and bare.islower() and len(bare) > 1:
        return (word, bare if bare != word else SPACE + word)
    if bare.isascii() and bare.isalpha() and bare.isupper() and len(bare) > LONGEST_ABBREVIATION:
        return ()
    return (word,)


def build(texts: Iterable[str], size: int, minimum: int = 3) -> Tokenizer:
    """A tokenizer whose vocabulary holds the most frequent words of the texts, at most `size` entries in all.

    Each word in small letters is there in both its forms, whichever of them the texts have.
    """
    counts: Counter[str] = Counter()
    pre_tokenizer = _pre_tokenizer()
    for text in texts:
        counts.update(piece for piece, _ in pre_tokenizer.pre_tokenize_str(text))
    vocabulary = {character: index for index, character in enumerate(bytes_to_characters().values())}
    wanted = size - len(SPECIAL) - len(MARKUP)
    for word, count in counts.most_common():
        new = [form for form in forms(word) if form not in vocabulary]
        if count >= minimum and len(vocabulary) + len(new) <= wanted:
            vocabulary.update({form: len(vocabulary) + n for n, form in enumerate(new)})
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in MARKUP])
    return tokenizer


def wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers loads it, with its chat template and response template."""
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        model_max_length=CONTEXT_LENGTH,
        clean_up_tokenization_spaces=False,
        response_template=RESPONSE_TEMPLATE,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
