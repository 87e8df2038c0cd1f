"""What the compiled steps between a model's products save: each beside PyTorch's operations for the same.

    python benchmarks/kernels.py [--threads 2] [--repeat 30]

Attention is that of a model with 6 heads of 64 numbers for 2 of keys and values; norms and gates that of 384 and 768
numbers a token. Times are the lower quartile; caches are warm, as they are not in a model. But the weights of products,
3,584 x 1,024 numbers, come from memory.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from modelcompose.adapters.transformers.compiler import library
from modelcompose.adapters.transformers.kernels import Kernels, PlainSteps
from modelcompose.adapters.transformers.linear import Packed
from modelcompose.adapters.transformers.memory import KVShape, Memory
from modelcompose.adapters.transformers.rows import Row

HEADS, KV_HEADS, SIZE, HIDDEN, INNER = 6, 2, 64, 384, 768
PRODUCT = 3584, 1024
SHAPE = KVShape(1, KV_HEADS, SIZE, SIZE, torch.bfloat16, torch.device("cpu"))

Pair = tuple[str, Callable[[], object], Callable[[], object]]


def pairs(kernels: Kernels) -> Iterator[Pair]:
    """What is computed, PyTorch's way, and the compiled one."""
    plain, weight = PlainSteps(), _random(HIDDEN)
    for tokens in (1, 16, 64, 1024):
        states, both = _random(tokens, HIDDEN), _random(tokens, 2 * INNER)
        queries, angles = _random(tokens, HEADS + KV_HEADS, SIZE), _random(tokens, 1, SIZE)
        yield (
            f"norm of {tokens:,} tokens",
            lambda s=states: plain.normed(s, weight, 1e-5),
            lambda s=states: kernels.normed(s, weight, 1e-5),
        )
        yield (
            f"rotary embedding of {tokens:,} tokens",
            lambda q=queries, a=angles: plain.rotated(q, a, a),
            lambda q=queries, a=angles: kernels.rotated(q, a, a),
        )
        yield f"gate of {tokens:,} tokens", lambda b=both: plain.gated(b), lambda b=both: kernels.gated(b)
    for rows, filled in ((1, 2000), (16, 60), (16, 2000), (64, 160)):
        yield _singles(kernels, rows, filled)
    if kernels.most_projected:
        weights = [_random(*PRODUCT) for _ in range(24)]
        for tokens in (1, 2, 4, 8, 16, 32, 64):
            yield _product(kernels, weights, tokens)
    for before, tokens in ((0, 100), (0, 500), (0, 2000), (1000, 1000), (1760, 100)):
        if kernels.can_attend_pieces(SIZE):
            yield _piece(kernels, before, tokens)


def _singles(kernels: Kernels, count: int, filled: int) -> Pair:
    """One token each in so many rows of the same length, which PyTorch has side by side."""
    rows = [_row(filled) for _ in range(count)]
    queries, places = _random(count, HEADS, SIZE), kernels.places(rows)
    keys, values = (
        torch.cat(each)[:, :, : filled + 1] for each in zip(*[(r.keys, r.values) for r in rows], strict=True)
    )
    return (
        f"attention of a token in each of {count} rows of {filled:,}",
        lambda: F.scaled_dot_product_attention(queries[:, :, None], keys, values, enable_gqa=True),
        lambda: kernels.attended(queries, places, 0, KV_HEADS, None, None),
    )


def _product(kernels: Kernels, weights: list[Tensor], tokens: int) -> Pair:
    """A linear layer, each time with another weight."""
    states = _random(tokens, PRODUCT[1])
    theirs, ours = (itertools.cycle([Packed(each, None, means) for each in weights]) for means in (None, kernels))
    return f"product of {tokens} tokens", lambda: next(theirs)(states), lambda: next(ours)(states)


def _piece(kernels: Kernels, before: int, tokens: int) -> Pair:
    """Some tokens of a prompt after others; PyTorch's takes two calls where there are others."""
    row, queries = _row(before), _random(tokens, HEADS, SIZE)
    turned, end = queries.transpose(0, 1)[None], before + tokens

    def plain() -> None:
        for begin, stop, is_causal in ((0, before, False), (before, end, True)):
            if stop > begin:
                keys, values = row.keys[:, :, begin:stop], row.values[:, :, begin:stop]
                F.scaled_dot_product_attention(turned, keys, values, is_causal=is_causal, enable_gqa=True)

    return (
        f"attention of {tokens:,} tokens after {before:,}",
        plain,
        lambda: kernels.attended_piece(queries, row.keys[0], row.values[0], before, None, None),
    )


def _row(filled: int) -> Row:
    row = Row.alone(Memory(SHAPE), 4096)
    row.keys.normal_()
    row.values.normal_()
    row.filled = filled
    return row


def _random(*shape: int) -> Tensor:
    return torch.randn(shape).to(torch.bfloat16)


def _seconds(function: Callable[[], object], repeat: int) -> float:
    times = []
    for _ in range(repeat + 3):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return sorted(times[3:])[repeat // 4]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeat", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    print(f"{options.threads} threads\n\n| | PyTorch, us | compiled, us | compiled / PyTorch |\n|---|---|---|---|")
    with torch.inference_mode():
        for name, plain, compiled in pairs(Kernels(library())):
            theirs, ours = _seconds(plain, options.repeat), _seconds(compiled, options.repeat)
            print(f"| {name} | {theirs * 1e6:,.0f} | {ours * 1e6:,.0f} | {ours / theirs:.2f} |", flush=True)


if __name__ == "__main__":
    main()
