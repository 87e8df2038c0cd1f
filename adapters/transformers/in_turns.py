"""Any other architecture: one sequence after the other, with the caches that transformers itself makes."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence as Many
from typing import Any, cast

import torch
from torch import Tensor
from transformers import Cache, EncoderDecoderCache
from transformers.cache_utils import DynamicLayer, LinearAttentionCacheLayerMixin

from ..errors import ConfigError
from .cache import new_cache
from .linear import pack_layers
from .load import LoadedModel
from .placement import is_out_of_memory
from .sequences import Computed, Piece, Sequence

SMALL_MODEL = 50_000_000
"""With fewer parameters than this, one token's matrices are done before a second thread is awake."""


class State:
    """What the model keeps of one sequence between its forwards: its cache, and the encoder's output if it has one."""

    def __init__(self, cache: Cache, encoder_outputs: Any = None) -> None:
        self.cache = cache
        self.encoder_outputs = encoder_outputs

    def copy(self) -> State:
        """The same state, to be continued apart; nothing ever writes to an encoder's output."""
        return State(copy.deepcopy(self.cache), self.encoder_outputs)


class InTurns:
    """Computes the sequences of a step one after the other; where memory runs out, one of them fails and no other."""

    memory_tokens = None
    kernels = None
    can_repeat = False

    def __init__(self, loaded: LoadedModel) -> None:
        self._forward = Forward(loaded)
        self.can_chunk = self._forward.can_chunk

    def start(self, sequence: Sequence) -> None:
        sequence.place = self._forward.start(sequence.prompt.token_ids)

    def step(self, running: Many[Sequence], pieces: Many[Piece]) -> Computed:
        done: list[Sequence] = []
        logits: list[Tensor] = []
        scores: list[tuple[Sequence, Tensor]] = []
        failed: list[tuple[Sequence, Exception]] = []
        for sequence, count in [*((sequence, 1) for sequence in running), *pieces]:
            is_scored = sequence.scores_prompt
            try:
                new = self._compute(sequence, count, last_only=not is_scored)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                failed.append((sequence, error))
                continue
            if is_scored:
                scores.append((sequence, new))
            if sequence.left == 0:
                done.append(sequence)
                logits.append(new[-1])
        return Computed(done, torch.stack(logits) if logits else None, scores, failed)

    def repeat(self, sequence: Sequence) -> None:
        raise NotImplementedError("a cache of transformers' own does not go back")

    def fork(self, sequence: Sequence, other: Sequence) -> None:
        other.place, other.computed = _state(sequence).copy(), sequence.computed

    def release(self, sequence: Sequence) -> None:
        sequence.place, sequence.computed = None, 0

    def rest(self) -> None:
        """Nothing is kept."""

    def _compute(self, sequence: Sequence, count: int, *, last_only: bool) -> Tensor:
        token_ids = sequence.tokens[sequence.computed : sequence.computed + count]
        logits = self._forward(_state(sequence), token_ids, last_only=last_only)
        sequence.computed += count
        return logits


def _state(sequence: Sequence) -> State:
    assert isinstance(sequence.place, State)
    return sequence.place


class Forward:
    """Runs a model for one sequence at a time."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._model = cast("Any", loaded.model)  # its forward is typed as whatever attribute a module may have
        self._device = loaded.device
        self._threads = torch.get_num_threads()
        is_small = loaded.device.type == "cpu" and self._model.num_parameters() < SMALL_MODEL
        self._decode_threads = 1 if is_small else self._threads
        pack_layers(loaded.model)
        self._is_encoder_decoder = loaded.is_encoder_decoder
        names = inspect.signature(loaded.model.forward).parameters
        self._cache_name = next((name for name in ("past_key_values", "cache_params") if name in names), "")
        if not self._cache_name or not self._model._supports_default_dynamic_cache():
            raise ConfigError(f"{loaded.name}: models of the type {type(loaded.model).__name__} are not supported yet")
        self._config = loaded.model.config.get_text_config(decoder=True)
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in names else {}
        self._ids_name = "decoder_input_ids" if self._is_encoder_decoder else "input_ids"
        # Not every state-space layer can go on in the middle of a prompt, and of other caches we know nothing.
        self.can_chunk = all(
            isinstance(layer, DynamicLayer) and not isinstance(layer, LinearAttentionCacheLayerMixin)
            for layer in new_cache(self._config).layers
        )

    def start(self, encoder_ids: Many[int] = ()) -> State:
        """The state before the first token; an encoder reads `encoder_ids` here."""
        if not self._is_encoder_decoder:
            return State(new_cache(self._config))
        encoder_outputs = self._model.get_encoder()(input_ids=self._tensor(encoder_ids), return_dict=True)
        return State(EncoderDecoderCache(new_cache(self._config), new_cache(self._config)), encoder_outputs)

    def __call__(self, state: State, token_ids: Many[int], *, last_only: bool = True) -> Tensor:
        """Logits `[tokens, vocabulary]` after each of `token_ids`, or after the last one only; `state` moves on."""
        torch.set_num_threads(self._decode_threads if len(token_ids) == 1 else self._threads)
        inputs: dict[str, Any] = {self._ids_name: self._tensor(token_ids), self._cache_name: state.cache}
        if state.encoder_outputs is not None:
            inputs["encoder_outputs"] = state.encoder_outputs
        if last_only:
            inputs |= self._last_only
        logits: Tensor = self._model(**inputs, use_cache=True, return_dict=True).logits[0]
        return logits[-1:] if last_only else logits

    def _tensor(self, token_ids: Many[int]) -> Tensor:
        return torch.tensor([token_ids], device=self._device)


def decoder_start(loaded: LoadedModel) -> list[int]:
    """The tokens that an encoder-decoder's answers begin with."""
    for config in (loaded.model.generation_config, loaded.model.config):
        for name in ("decoder_start_token_id", "bos_token_id"):
            if (token := getattr(config, name, None)) is not None:
                return [token]
    raise ConfigError(f"{loaded.name}: the model's configuration has no decoder_start_token_id")
