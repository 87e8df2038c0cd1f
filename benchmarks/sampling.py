"""How long the choice of a step's tokens takes, beside choosing the likeliest ones.

    python benchmarks/sampling.py [--vocabulary 8192,131072] [--rows 1,16,64] [--threads 2]

Every row has a prompt of 500 tokens; the median of 15 steps. Draws are PyTorch's operations and, where that can be
done, compiled.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from typing import Any

import torch

from modelcompose.adapters.base import Sampling
from modelcompose.adapters.transformers.compiler import NotCompiled, library
from modelcompose.adapters.transformers.kernels import Kernels
from modelcompose.adapters.transformers.sampling import Sampler, choose

PROMPT = 500
KINDS: dict[str, dict[str, Any]] = {
    "likeliest": {"temperature": 0.0},
    "temperature": {"temperature": 0.8},
    "top_p": {"temperature": 0.8, "top_p": 0.95},
    "top_k": {"temperature": 0.8, "top_k": 40},
    "repetition_penalty": {"temperature": 0.0, "repetition_penalty": 1.1},
    "presence and frequency penalty": {"temperature": 0.0, "presence_penalty": 0.5, "frequency_penalty": 0.5},
    "logit_bias": {"temperature": 0.0, "logit_bias": dict.fromkeys(range(50), 1.0)},
}
Way = tuple[str, dict[str, Any], Kernels | None]


def step_time(kind: dict[str, Any], kernels: Kernels | None, rows: int, vocabulary: int) -> float:
    """Seconds for one token of each row."""
    prompts = [random.choices(range(vocabulary), k=PROMPT) for _ in range(rows)]
    samplers = [Sampler(Sampling(**kind), tokens) for tokens in prompts]
    times = []
    for _ in range(15):
        logits = (torch.randn(rows, vocabulary) * 3).bfloat16()
        began = time.perf_counter()
        chosen = choose(logits, samplers, kernels)
        for sampler, tokens, token in zip(samplers, prompts, chosen, strict=True):
            assert isinstance(token, int)
            tokens.append(token)
            sampler.note(token)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _kernels() -> Kernels | None:
    try:
        return Kernels(library())
    except NotCompiled as why:
        print(why)
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", default="8192,131072")
    parser.add_argument("--rows", default="1,16,64")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    shapes = [(int(rows), int(size)) for size in args.vocabulary.split(",") for rows in args.rows.split(",")]
    print("| ms, and times the likeliest's | " + " | ".join(f"{rows} x {size:,}" for rows, size in shapes) + " |")
    print("|---" * (1 + len(shapes)) + "|")
    base = [step_time(KINDS["likeliest"], None, *shape) for shape in shapes]
    ways: list[Way] = [(name, kind, None) for name, kind in KINDS.items()]
    if (kernels := _kernels()) is not None:
        ways += [(f"{name}, compiled", kind, kernels) for name, kind in KINDS.items() if kind["temperature"]]
    for name, kind, means in ways:
        times = [step_time(kind, means, *shape) for shape in shapes]
        cells = [f"{own * 1000:.2f} ({own / least:.1f})" for own, least in zip(times, base, strict=True)]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
