"""What a model's own generation config asks of its logits, beyond what requests can ask for."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch

from .adjusting import LogitsProcessor
from .load import LoadedModel


class ModelProcessors:
    """Makes transformers' own logits processors for each sequence: repeated n-grams, forced and suppressed tokens ...

    Most models ask for none.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._model = cast("Any", loaded.model)  # what is called here has no types
        self._device = loaded.device
        self._config = copy.deepcopy(loaded.model.generation_config)
        # These are `Sampler`'s part.
        self._config.do_sample, self._config.repetition_penalty = False, None
        self._model._prepare_special_tokens(self._config, device=loaded.device)
        self._has_any = True
        self._has_any = bool(self((0,), 1, 1))

    def __call__(self, prompt: Sequence[int], start: int, limit: int) -> list[LogitsProcessor]:
        """Processors for an answer to `prompt` of at most `limit` tokens after the first `start` of the decoder's."""
        if not self._has_any:
            return []
        self._config.max_length = start + limit
        return list(
            self._model._get_logits_processor(
                self._config,
                input_ids_seq_length=start,
                encoder_input_ids=torch.tensor([list(prompt)], device=self._device),
                device=str(self._device),
            )
        )
