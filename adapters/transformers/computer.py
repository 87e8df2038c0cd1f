"""Which way a model is computed; a way that does not give the model's own numbers is not taken."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import pairwise, product
from typing import Any, cast

import torch
from torch import Tensor

from ..errors import ConfigError
from .batch import Batch, Means, Part, Singles
from .compiler import NotCompiled
from .forward import ModuleForward, Unfit, kv_shape
from .graphs import REPEATS, CudaGraphs, Forward, Record, RecordedSteps
from .in_rows import ROWS_SHARE, InRows
from .in_turns import InTurns
from .kernels import Kernels, compiled
from .llama import LlamaForward, is_like_llama
from .load import LoadedModel
from .memory import KVShape, Memory
from .placement import free_memory
from .rows import FIRST_LENGTH, Row, Slabs, row_length
from .sequences import Computer
from .settings import ModelSettings

logger = logging.getLogger(__name__)

MEMORY_SHARES = {"cuda": 0.5}
MEMORY_SHARE = 0.3
"""Of the memory that is free once the model is loaded, for the KV cache."""

TOLERANCES = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 8e-2}
"""How far logits may be apart, as a share of how far the model's own lie from their mean."""

LENGTHS = (40, 23)
PIECES = (0, 9, 10, 20)
WAYS = slice(PIECES[-1]), slice(PIECES[-1], None)
"""The random prompts of the trial are read in pieces, and then token by token."""


@torch.inference_mode()
def computer_for(loaded: LoadedModel, settings: ModelSettings, record: Record | None = None) -> Computer:
    """In rows if the model can be computed so, else in turns; the log says which, and why.

    `record` records steps; on a GPU they are recorded as CUDA graphs unless `settings.compile` is False.
    """
    if record is None and loaded.device.type == "cuda" and settings.compile is not False:
        record = CudaGraphs(loaded.device)
    try:
        return _in_rows(loaded, settings, record)
    except Unfit as why:
        logger.info("%s answers one request after the other: %s", loaded.name, why)
        return InTurns(loaded)


def _in_rows(loaded: LoadedModel, settings: ModelSettings, record: Record | None) -> Computer:
    shape = _shape(loaded)
    weights = loaded.model.num_parameters()
    prompts = _prompts(loaded)
    expected = [_own_logits(loaded, prompt) for prompt in prompts]
    known = _kernels(loaded, settings, shape) if record is None else None
    forward, kernels = _proven(loaded, shape, prompts, expected, known)
    recorded = None
    if record is not None:
        recorded = _recorded(loaded, shape, prompts, expected, forward, record)
        if recorded is None and settings.compile:
            raise ConfigError(f"compile is true, but steps of {loaded.name} cannot be recorded; set compile: false")
    memory = settings.kv_cache_memory
    if memory is None:
        memory = int(free_memory(loaded.device) * MEMORY_SHARES.get(loaded.device.type, MEMORY_SHARE))
        memory = min(memory, 2 * settings.max_concurrent_count * row_length(loaded.context_length) * shape.token_bytes)
    if memory * ROWS_SHARE < FIRST_LENGTH * shape.token_bytes:
        raise ConfigError(
            f"{memory} bytes are too little for the KV cache of {loaded.name}; set kv_cache_memory to more"
        )
    return InRows(forward, shape, memory, weights=weights, kernels=kernels, recorded=recorded)


def _recorded(
    loaded: LoadedModel,
    shape: KVShape,
    prompts: list[list[int]],
    expected: list[Tensor],
    forward: Forward,
    record: Record,
) -> RecordedSteps | None:
    """What records a forward's steps, if these then give the expected logits."""
    tried = RecordedSteps(forward, shape.device, record, repeats=1)
    try:
        worst = _worst(forward, shape, prompts, expected, None, tried)
    except Exception as error:  # whatever a model does that cannot be recorded
        logger.info("steps of %s are not recorded: %s: %s", loaded.name, type(error).__name__, error)
        return None
    if not len(tried):  # it has said why
        return None
    if worst > TOLERANCES.get(loaded.dtype, 1e-1):
        logger.info("steps of %s are not recorded, for their logits are off by %.1e then", loaded.name, worst)
        return None
    tried.repeats = REPEATS
    return tried


def _kernels(loaded: LoadedModel, settings: ModelSettings, shape: KVShape) -> Kernels | None:
    try:
        if shape.key_size != shape.value_size:
            raise NotCompiled("its keys and values are of different sizes")
        return compiled(settings.compile, loaded.dtype, loaded.device)
    except NotCompiled as why:
        logger.debug("nothing of %s is compiled: %s", loaded.name, why)
        return None


def _shape(loaded: LoadedModel) -> KVShape:
    try:
        return kv_shape(loaded)
    except Unfit:
        raise
    except Exception as error:  # whatever a model that is made in another way comes upon
        raise Unfit(f"it takes no cache of ours ({type(error).__name__}: {error})") from error


def _proven(
    loaded: LoadedModel, shape: KVShape, prompts: list[list[int]], expected: list[Tensor], kernels: Kernels | None
) -> tuple[Forward, Kernels | None]:
    """The quickest forward that gives the expected logits, with the kernels or without."""
    without: tuple[Kernels | None, ...] = (None,)
    choice = without if kernels is None else (kernels, None)
    ways: list[Callable[[LoadedModel, Kernels | None], Any]] = [ModuleForward]
    if is_like_llama(loaded):
        ways.insert(0, LlamaForward)
    why = ""
    for way, chosen in product(ways, choice):
        forward = way(loaded, chosen)
        try:
            worst = _worst(forward, shape, prompts, expected, chosen)
        except Exception as error:  # as above
            logger.debug("%s of %s failed", type(forward).__name__, loaded.name, exc_info=True)
            why = f"computing it in rows fails ({type(error).__name__}: {error})"
        else:
            if worst <= TOLERANCES.get(loaded.dtype, 1e-1):
                logger.debug("%s computes %s; logits are off by %.1e", type(forward).__name__, loaded.name, worst)
                return cast("Forward", forward), chosen
            why = f"in rows its logits are off by {worst:.1e}"
        forward.undo()
    raise Unfit(why)


def _prompts(loaded: LoadedModel) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    lengths = [min(length, loaded.context_length) for length in LENGTHS]
    return [torch.randint(0, loaded.vocab_size, (length,), generator=generator).tolist() for length in lengths]


def _own_logits(loaded: LoadedModel, prompt: list[int]) -> Tensor:
    """The model's logits `[tokens, vocabulary]`, without any cache."""
    model: Any = loaded.model
    logits: Tensor = model(input_ids=torch.tensor([prompt], device=loaded.device), use_cache=False).logits[0]
    return logits.float()


def _worst(
    forward: Forward,
    shape: KVShape,
    prompts: list[list[int]],
    expected: list[Tensor],
    kernels: Kernels | None,
    recorded: RecordedSteps | None = None,
) -> float:
    """How far off the logits are: of prompts read in pieces, side by side, and then token by token in one slab."""
    memory, means = Memory(shape), Means(kernels=kernels)
    slabs = Slabs(memory)
    rows = [Row.alone(memory, row_length(len(prompt))) for prompt in prompts]
    got: list[list[Tensor]] = [[] for _ in prompts]
    for begin, end in pairwise(PIECES):
        parts = [Part(row.slab, [row], end - begin, at * (end - begin)) for at, row in enumerate(rows)]
        tokens = [token for prompt in prompts for token in prompt[begin:end]]
        logits = forward(Batch.of(parts, tokens, range(len(tokens)), means, device=shape.device))
        for row, mine, own in zip(rows, got, logits.split(end - begin), strict=True):
            row.filled = end
            mine.append(own)
    if kernels is None:
        rows = [row.copy_to(slabs.of(row.slab.length)) for row in rows]
    for position in range(PIECES[-1], min(map(len, prompts))):
        tokens = [prompt[position] for prompt in prompts]
        done = None if recorded is None else recorded(list(slabs), tokens)
        if done is not None:
            done = done.clone()  # the next time overwrites it
        else:
            part = Part(rows[0].slab, rows, 1, 0) if kernels is None else Singles(rows, 0, kernels)
            done = forward(Batch.of([part], tokens, range(len(rows)), means, device=shape.device))
        for row, mine, own in zip(rows, got, done.split(1), strict=True):
            row.filled += 1
            mine.append(own)
    pairs = [(torch.cat(mine), own) for mine, own in zip(got, expected, strict=True)]
    # The two ways to read are computed differently, and neither is to hide behind the other.
    return max(_apart(mine[way], own[: len(mine)][way]) for mine, own in pairs for way in WAYS if len(mine[way]))


def _apart(got: Tensor, expected: Tensor) -> float:
    spread = expected.std(-1).mean()
    return float((got.float() - expected).abs().mean() / spread) if torch.isfinite(got).all() else float("inf")
