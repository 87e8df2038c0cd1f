"""What lies between a model's large products: norms, rotary embeddings, gates, attention, small products, and draws.

PyTorch has an operation for every step of these, which each read and write all numbers; `kernels.c` does them at once.
Beside them it takes 0.3 to 0.6 of the time for attention of one token in each of 1 to 64 rows, 0.5 for attention of
500 to 2,000 tokens of a prompt, 0.3 to 0.6 for norms and rotary embeddings (`benchmarks/kernels.py`). Products of up to
128 tokens take 0.6 (1) to 1.0 (128) of oneDNN's time, where there are no matrix units.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ConfigError
from .compiler import NotCompiled, library
from .drawing import Draw
from .rows import Row
from .tensors import put

logger = logging.getLogger(__name__)

_POINTER, _SIZE, _REAL, _COUNT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int
_ARGUMENTS = {
    "normalize": (_POINTER, _SIZE, _POINTER, _REAL, _SIZE, _SIZE, _SIZE, _POINTER, _SIZE, _COUNT),
    "rotate": (_POINTER, _SIZE, _POINTER, _POINTER, _SIZE, _SIZE, _SIZE, _COUNT),
    "gated": (_POINTER, _SIZE, _SIZE, _POINTER, _COUNT),
    "draw": (_POINTER, _SIZE, _SIZE, _POINTER, _POINTER, _COUNT),
    "keep": (_POINTER, _POINTER, _SIZE, _POINTER, *[_SIZE] * 4),
    "attend": (_POINTER, _SIZE, _POINTER, *[_SIZE] * 6, _REAL, _POINTER, _COUNT),
}
_ARGUMENTS_OF_PIECES = {
    "attend_piece": (_POINTER, _SIZE, _POINTER, _POINTER, *[_SIZE] * 7, _REAL, _POINTER, _POINTER, _COUNT),
}
_ARGUMENTS_OF_PRODUCTS = {
    "project": (_POINTER, _SIZE, _POINTER, _POINTER, _POINTER, _COUNT),
    "decode": (*[_POINTER] * 5, _SIZE, _POINTER, _COUNT),
}

BLOCK = 64
"""Outputs of a linear layer whose weights lie together."""


class Drawing(ctypes.Structure):
    """A `Draw` for `kernels.c`."""

    _fields_ = (
        *((name, _REAL) for name in ("temperature", "top_p", "min_p")),
        ("top_k", _SIZE),
        ("uniform", ctypes.c_double),
    )


class Weights(ctypes.Structure):
    """A linear layer's packed weights for `kernels.c`, which says how they lie."""

    _fields_ = (
        ("packed", _POINTER),
        ("bias", _POINTER),
        ("inputs", _SIZE),
        ("padded", _SIZE),
        ("outputs", _SIZE),
    )
    inputs: int
    outputs: int


class LayerWeights(ctypes.Structure):
    """What `kernels.c` knows of a layer; there may be no norms of queries and keys (None), and no `window` (0)."""

    _fields_ = (
        *((name, _POINTER) for name in ("norm", "q_norm", "k_norm", "mlp_norm")),
        *((name, Weights) for name in ("qkv", "out", "gate_up", "down")),
        ("rotates", _SIZE),
        ("window", _SIZE),
    )
    gate_up: Weights
    down: Weights


class ModelWeights(ctypes.Structure):
    """A model's layers for `kernels.c`."""

    _fields_ = (
        ("layers", ctypes.POINTER(LayerWeights)),
        *((name, _SIZE) for name in ("count", "hidden_size", "heads", "kv_heads", "size")),
        ("eps", _REAL),
        ("scaling", _REAL),
    )
    layers: ctypes.Array[LayerWeights]
    heads: int
    kv_heads: int
    size: int

    @property
    def room(self) -> int:
        """Numbers that `kernels.c` keeps of a token between two steps, beside twice its hidden state."""
        layer = self.layers[0]
        return 2 * (self.heads + self.kv_heads) * self.size + layer.gate_up.outputs + layer.down.inputs


class Steps(Protocol):
    """Steps between products, on states `[tokens, size]` or `[tokens, heads, size]` whose tokens may lie apart."""

    def normed(self, states: Tensor, weight: Tensor, eps: float, out: Tensor | None = None) -> Tensor:
        """RMS norm of the last dimension; in `out`, if given."""

    def rotated(self, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """`states` `[tokens, heads, size]` turned, if need be in their place.

        `cos` and `sin` are `[tokens, 1, size]`, the sines of the first half with their sign changed.
        """

    def gated(self, both: Tensor) -> Tensor:
        """`silu(gate) * up` `[tokens, size]`, where `both` `[tokens, 2 * size]` has all gates of a token first."""


class PlainSteps:
    """The steps as PyTorch's operations."""

    def normed(self, states: Tensor, weight: Tensor, eps: float, out: Tensor | None = None) -> Tensor:
        return put(F.rms_norm(states, weight.shape, weight, eps), out)

    def rotated(self, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        halves = states.unflatten(-1, (2, -1)).flip(-2).flatten(-2)
        return torch.addcmul(states * cos, halves, sin)

    def gated(self, both: Tensor) -> Tensor:
        gate, up = both.chunk(2, -1)
        return F.silu(gate).mul_(up)


class Kernels:
    """The steps, attention, products and draws, compiled; all tensors but scores are bfloat16 on the CPU."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._has_pieces = bool(self._library.can_attend_pieces())
        self.most_projected: int = self._library.most_projected()
        """Tokens at a time up to which products are quicker than oneDNN's; 0: there are none."""
        there = dict(_ARGUMENTS)
        if self._has_pieces:
            there |= _ARGUMENTS_OF_PIECES
        if self.most_projected:
            there |= _ARGUMENTS_OF_PRODUCTS
        for name, arguments in there.items():
            function = getattr(self._library, name)
            function.argtypes, function.restype = arguments, None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Inside, threads that have nothing to do look out for work instead of sleeping."""
        gathered = self._library.gather(torch.get_num_threads())
        try:
            yield
        finally:
            if gathered:
                self._library.disperse()

    def normed(self, states: Tensor, weight: Tensor, eps: float, out: Tensor | None = None) -> Tensor:
        states = _in_line(states)
        normed = states.new_empty(states.shape) if out is None else out
        tokens, size = len(states), states.shape[-1]
        heads = states.shape[1] if states.dim() == 3 else 1
        self._library.normalize(
            *(states.data_ptr(), states.stride(0), weight.data_ptr(), eps, tokens, heads, size),
            *(normed.data_ptr(), normed.stride(0), torch.get_num_threads()),
        )
        return normed

    def rotated(self, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        states = _in_line(states)
        tokens, heads, size = states.shape
        self._library.rotate(
            *(states.data_ptr(), states.stride(0), cos.data_ptr(), sin.data_ptr()),
            *(tokens, heads, size, torch.get_num_threads()),
        )
        return states

    def gated(self, both: Tensor) -> Tensor:
        tokens, size = len(both), both.shape[-1] // 2
        gated = both.new_empty(tokens, size)
        self._library.gated(both.data_ptr(), tokens, size, gated.data_ptr(), torch.get_num_threads())
        return gated

    def drawn(self, scores: Tensor, draws: Sequence[Draw]) -> list[int | None]:
        """As `drawn_tokens`, but the scores are overwritten; of equally likely tokens at top_p's end all are kept."""
        rows, size = scores.shape
        settings = (Drawing * rows)(*(Drawing(d.temperature, d.top_p, d.min_p, d.top_k, d.uniform) for d in draws))
        tokens = (_SIZE * rows)()
        self._library.draw(
            *(scores.data_ptr(), rows, size, ctypes.addressof(settings)),
            *(ctypes.addressof(tokens), torch.get_num_threads()),
        )
        return [None if token < 0 else token for token in tokens]

    @staticmethod
    def places(rows: Sequence[Row]) -> Tensor:
        """Where rows are, each in a slab of its own, and how many tokens they have: for `keep` and `attended`."""
        return torch.tensor(
            [(row.slab.keys.data_ptr(), row.slab.values.data_ptr(), row.slab.length, row.filled) for row in rows]
        )

    def keep(self, keys: Tensor, values: Tensor, places: Tensor, layer: int) -> None:
        """Put the keys and values `[rows, heads, size]` of one new token a row where they belong."""
        keys, values = _in_line(keys), _in_line(values)
        if keys.stride(0) != values.stride(0):
            keys, values = keys.contiguous(), values.contiguous()
        rows, heads, size = keys.shape
        self._library.keep(
            *(keys.data_ptr(), values.data_ptr(), keys.stride(0), places.data_ptr(), rows, layer, heads, size)
        )

    def attended(
        self,
        queries: Tensor,
        places: Tensor,
        layer: int,
        kv_heads: int,
        scaling: float | None,
        window: int | None,
        out: Tensor | None = None,
    ) -> Tensor:
        """Attention of one token a row, `[rows, heads, size]`, to its row and itself, or the last `window` of both.

        The scores are times `scaling`, None: 1 / sqrt(size). The result is put into `out`, if given.
        """
        queries = _in_line(queries)
        rows, heads, size = queries.shape
        scaling = size**-0.5 if scaling is None else scaling
        attended = queries.new_empty(queries.shape) if out is None else out
        self._library.attend(
            *(queries.data_ptr(), queries.stride(0), places.data_ptr(), rows, layer, heads, kv_heads, size),
            *(window or 0, scaling, attended.data_ptr(), torch.get_num_threads()),
        )
        return attended

    def can_attend_pieces(self, size: int) -> bool:
        """Whether this processor has the instructions for `attended_piece` with vectors of that size."""
        return self._has_pieces and size % 32 == 0

    def attended_piece(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        first: int,
        scaling: float | None,
        window: int | None,
        out: Tensor | None = None,
    ) -> Tensor:
        """Attention of a piece of a prompt, `[tokens, heads, size]`, whose first token is the row's token `first`.

        Each attends to the row's tokens up to itself, or the last `window` of them; `keys` and `values` are
        `[kv heads, length, size]` and hold the piece's own already. The result is put into `out`, if given.
        """
        queries = _in_line(queries)
        tokens, heads, size = queries.shape
        scaling = size**-0.5 if scaling is None else scaling
        attended = queries.new_empty(queries.shape) if out is None else out
        turned = values.new_empty(values.numel())
        self._library.attend_piece(
            *(queries.data_ptr(), queries.stride(0), keys.data_ptr(), values.data_ptr(), first, tokens, heads),
            *(len(keys), keys.shape[1], size, window or 0, scaling),
            *(turned.data_ptr(), attended.data_ptr(), torch.get_num_threads()),
        )
        return attended

    @staticmethod
    def weights(place: int, shape: Sequence[int], bias: Tensor | None) -> Weights:
        """A linear layer `[out, in]` whose packed weights are at `place`; they and the bias have to stay there."""
        outputs, inputs = shape
        return Weights(place, None if bias is None else bias.data_ptr(), inputs, -(-inputs // 32) * 32, outputs)

    def projected(self, input: Tensor, weights: Weights, other: Tensor | None = None) -> Tensor:
        """`[..., in]` -> `[..., out]` of a linear layer, and `other` `[..., out]`.

        What a token's numbers are does not depend on how many others there are.
        """
        input = input.contiguous()
        plus = None if other is None else other.contiguous().data_ptr()
        output = input.new_empty(*input.shape[:-1], weights.outputs)
        self._library.project(
            *(input.data_ptr(), input.numel() // input.shape[-1], ctypes.addressof(weights), plus),
            *(output.data_ptr(), torch.get_num_threads()),
        )
        return output

    def decoded(self, model: ModelWeights, hidden: Tensor, cos: Tensor, sin: Tensor, places: Tensor) -> Tensor:
        """What the layers make of one new token a row, `hidden` `[rows, size]`, which is overwritten.

        Keys and values are kept; `cos` and `sin` are as above.
        """
        room = hidden.new_empty(len(hidden), hidden.shape[-1] + model.room)
        self._library.decode(
            *(ctypes.addressof(model), hidden.data_ptr(), cos.data_ptr(), sin.data_ptr(), places.data_ptr()),
            *(len(places), room.data_ptr(), torch.get_num_threads()),
        )
        return hidden


def _in_line(states: Tensor) -> Tensor:
    """The states of each token in one line, be they those of several heads; tokens may lie apart."""
    size = states.shape[-1]
    is_so = states.stride(-1) == 1 and (states.dim() == 2 or states.stride(1) == size)
    return states if is_so else states.contiguous()


def compiled(wanted: bool | None, dtype: torch.dtype, device: torch.device) -> Kernels:
    """The compiled steps, if they are `wanted` (None: where they can be had); raises NotCompiled where they are not.

    Raises:
        ConfigError: they are wanted, and cannot be had.
    """
    try:
        if wanted is False:
            raise NotCompiled("compile is false")
        if device.type != "cpu" or dtype != torch.bfloat16:
            raise NotCompiled(f"it is of use for bfloat16 on a CPU, not for {str(dtype)[6:]} on {device.type}")
        return _loaded()
    except NotCompiled as error:
        if wanted:
            raise ConfigError(f"compile is true, but {error}; leave it out, or set compile: false") from error
        raise


def _loaded() -> Kernels:
    try:
        return Kernels(library())
    except (NotCompiled, OSError) as error:
        logger.info("answers take longer than they could, for nothing can be compiled: %s", error)
        raise NotCompiled(str(error)) from error
