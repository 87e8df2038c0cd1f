"""Incremental detokenizing says what the tokenizer's own `decode` says, for every kind of tokenizer."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from tiny_models import TinyModel, byte_level_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from modelcompose.adapters.transformers.detokenize import Vocabulary

WORDS = ["▁", "▁Hello", "▁wor", "ld", "H", "l", "o", "▁a", "!"]


def sentencepiece_like() -> PreTrainedTokenizerBase:
    """Llama 2's kind: a mark for spaces, single bytes as tokens, the first space not shown."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def streamed(vocabulary: Vocabulary, tokens: Sequence[int], before: Sequence[int] = ()) -> list[str]:
    detokenizer = vocabulary.detokenizer(before)
    return [*(detokenizer.feed(token) for token in tokens), detokenizer.finish()]


@pytest.mark.parametrize("seed", range(50))
def test_any_bytes_decode_as_the_whole_does(seed: int) -> None:
    tokenizer = byte_level_tokenizer(["<|end|>"], eos_token="<|end|>")
    tokens = random.Random(seed).choices(range(len(tokenizer)), k=30)
    assert "".join(streamed(Vocabulary(tokenizer), tokens)) == tokenizer.decode(tokens)


def test_bytes_as_tokens_come_out_as_whole_characters() -> None:
    tokenizer = sentencepiece_like()
    ids = tokenizer.get_vocab()
    tokens = [ids["▁Hello"], *(ids[f"<0x{byte:02X}>"] for byte in "你😀".encode()), ids["▁wor"], ids["ld"]]
    assert streamed(Vocabulary(tokenizer), tokens) == ["Hello", *["", "", "你"], *["", "", "", "😀"], " wor", "ld", ""]


@pytest.mark.parametrize("byte", ["<0xE4>", "<0xFF>"])
def test_bytes_that_never_become_a_character_do_not_hold_up_the_text(byte: str) -> None:
    tokenizer = sentencepiece_like()
    ids = tokenizer.get_vocab()
    tokens = [*[ids[byte]] * 50, ids["o"]]
    pieces = streamed(Vocabulary(tokenizer), tokens)
    assert "".join(pieces) == tokenizer.decode(tokens)
    assert "" not in pieces[3:-1:4]


def test_space_is_kept_where_a_text_goes_on() -> None:
    tokenizer = sentencepiece_like()
    ids = tokenizer.get_vocab()
    vocabulary = Vocabulary(tokenizer)
    assert streamed(vocabulary, [ids["▁wor"], ids["ld"]]) == ["wor", "ld", ""]
    assert streamed(vocabulary, [ids["▁wor"], ids["ld"]], before=[1, ids["▁Hello"]]) == [" wor", "ld", ""]


def test_words_in_parts_wait_for_their_end(tiny_model: TinyModel) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model("blenderbot_small"))
    tokens = tokenizer("hello how are you hella", add_special_tokens=False)["input_ids"]
    pieces = streamed(Vocabulary(tokenizer), tokens)
    assert "".join(pieces) == tokenizer.decode(tokens)
    assert not any("@@" in piece for piece in pieces)


def test_tokens_that_are_no_text_do_not_look_alike() -> None:
    tokenizer = byte_level_tokenizer(["<|end|>"], eos_token="<|end|>")
    vocabulary = Vocabulary(tokenizer)
    tokens = tokenizer("你", add_special_tokens=False)["input_ids"]
    assert [vocabulary.token_text(token) for token in tokens] == [r"\xe4", r"\xbd", r"\xa0"]
    assert b"".join(vocabulary.token_bytes(token) for token in tokens).decode() == "你"


def test_token_ids_beyond_the_vocabulary_are_empty() -> None:
    tokenizer = byte_level_tokenizer(["<|end|>"], eos_token="<|end|>")
    assert streamed(Vocabulary(tokenizer), [len(tokenizer) + 5]) == ["", ""]
