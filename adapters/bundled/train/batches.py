"""Examples as rows of tokens: encoding with loss weights, and packing several examples into a row."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor

from . import data
from .render import Example, marked, render
from .tokenizer import SPACE, bytes_to_characters


@dataclass(frozen=True)
class Encoded:
    """An example's token ids and the loss weight of each token."""

    skill: str
    tokens: list[int]
    weights: list[float]


@dataclass(frozen=True)
class Batch:
    """Rows of tokens [rows, length], their loss weights, and the number of the example each token belongs to."""

    tokens: Tensor
    weights: Tensor
    examples: Tensor


class Encoder:
    """Turns examples into tokens; marked words are spelled, and a few others too, so that spelling is learned."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        vocabulary = tokenizer.get_vocab()
        self.padding = vocabulary["<|pad|>"]
        characters = bytes_to_characters()
        self.bytes = [vocabulary[characters[byte]] for byte in range(256)]

    def pairs(self) -> list[tuple[int, int]]:
        """The words that have a token with a space in front and one without: the two ids of each."""
        vocabulary = self.tokenizer.get_vocab()
        bare = [word for word in vocabulary if len(word) > 1 and not word.startswith(SPACE)]
        return [(vocabulary[SPACE + word], vocabulary[word]) for word in bare if SPACE + word in vocabulary]

    def encode(self, example: Example) -> Encoded:
        """The tokens and loss weights of one example."""
        tokens: list[int] = []
        weights: list[float] = []
        for text, weight in render(example):
            for part, is_spelled in marked(text):
                ids = self.spell(part) if is_spelled else self.tokenizer.encode(part, add_special_tokens=False).ids
                tokens += ids
                weights += [weight] * len(ids)
        return Encoded(example.skill, tokens, weights)

    def spell(self, text: str) -> list[int]:
        """A text in single bytes."""
        return [self.bytes[byte] for byte in text.encode()]


def pack(encoded: list[Encoded], rows: int, length: int, padding: int) -> Batch:
    """Lay examples into rows, each into the fullest row that has room; a longer one than a row is cut.

    Raises:
        ValueError: the examples do not fit.
    """
    tokens = torch.full((rows, length), padding)
    weights = torch.zeros(rows, length)
    examples = torch.full((rows, length), -1)
    used = [0] * rows
    for number, item in enumerate(encoded):
        size = min(len(item.tokens), length)
        fitting = [row for row in range(rows) if used[row] + size <= length]
        if not fitting:
            raise ValueError(f"{len(encoded)} examples do not fit into {rows} rows of {length}")
        row = max(fitting, key=used.__getitem__)
        place = slice(used[row], used[row] + size)
        tokens[row, place] = torch.tensor(item.tokens[:size])
        weights[row, place] = torch.tensor(item.weights[:size])
        weights[row, used[row]] = 0.0  # the first token follows another example's last one
        examples[row, place] = number
        used[row] += size
    return Batch(tokens, weights, examples)


# Shapes of a batch in tokens a row, the shortest example that a row begins with, and the share of the steps. The long
# ones come late, when what they ask for has been learned in short; one of them is a smaller batch, for they are slow.
SHAPES = ((256, 0, 0.80), (512, 230, 0.19), (2048, 500, 0.01))
LATE_SHAPES = ((256, 0, 0.61), (512, 230, 0.15), (1024, 400, 0.06), (2048, 500, 0.14), (4096, 2000, 0.04))
LARGEST_LONG = 4096
WORDS_A_TOKEN = 0.6


def make_batch(seed: str, sources: data.Sources, encoder: Encoder, size: int, late: bool = False) -> Batch:
    """A full batch of the mixture, `size` tokens in all, or less of long ones; the same seed gives the same batch."""
    random = Random(seed)
    shapes = LATE_SHAPES if late else SHAPES
    length, shortest, _ = random.choices(shapes, weights=[share for *_, share in shapes])[0]
    rows = max(1, (min(size, LARGEST_LONG) if length == LARGEST_LONG else size) // length)
    chosen: list[Encoded] = []
    used = [0] * rows
    misses = 0
    while misses < 12:
        is_long = length > 1000 and len(chosen) < rows
        wanted = int(length * WORDS_A_TOKEN * random.uniform(0.25 if length < LARGEST_LONG else 0.5, 0.95))
        item = encoder.encode(data.make_long(random, sources, wanted) if is_long else data.make(random, sources, late))
        tokens = len(item.tokens)
        if tokens > length or (tokens < shortest and len(chosen) < rows):
            continue
        fitting = [row for row in range(rows) if used[row] + tokens <= length]
        if not fitting:
            misses += 1
            continue
        used[max(fitting, key=used.__getitem__)] += tokens
        chosen.append(item)
    return pack(chosen, rows, length, encoder.padding)
