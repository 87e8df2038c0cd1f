"""What makes the forward quicker does not change what it computes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from engines import bfloat16_model, loaded
from tiny_models import TinyModel
from torch import Tensor, nn
from transformers import DynamicCache

from modelcompose.adapters.transformers import batch
from modelcompose.adapters.transformers.batch import How, Means, Part
from modelcompose.adapters.transformers.cache import GrowingLayer, new_cache
from modelcompose.adapters.transformers.computer import computer_for
from modelcompose.adapters.transformers.forward import ModuleForward
from modelcompose.adapters.transformers.in_turns import Forward, InTurns
from modelcompose.adapters.transformers.linear import PackedLinear, can_pack, pack_layers
from modelcompose.adapters.transformers.llama import LlamaForward
from modelcompose.adapters.transformers.load import LoadedModel
from modelcompose.adapters.transformers.memory import KVShape, Memory
from modelcompose.adapters.transformers.rows import Row, Slab
from modelcompose.adapters.transformers.settings import ModelSettings
from modelcompose.adapters.transformers.team import Team

needs_bfloat16 = pytest.mark.skipif(
    not can_pack(torch.zeros(1, 1, dtype=torch.bfloat16)), reason="this CPU multiplies no bfloat16"
)


@needs_bfloat16
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tokens", [1, 3, 40])
@torch.inference_mode()
def test_a_packed_layer_gives_the_same_numbers(bias: bool, tokens: int) -> None:
    plain = nn.Sequential(nn.Linear(96, 160, bias=bias).to(torch.bfloat16))
    packed = copy.deepcopy(plain)
    pack_layers(packed)
    assert isinstance(packed[0], PackedLinear)
    hidden = torch.randn(1, tokens, 96).to(torch.bfloat16)
    torch.testing.assert_close(packed(hidden), plain(hidden), atol=1e-2, rtol=2e-2)


def test_only_bfloat16_layers_are_packed() -> None:
    layer = nn.Linear(4, 4)
    pack_layers(layer)
    assert type(layer) is nn.Linear


@pytest.mark.parametrize("window", [None, 90, 40])
@torch.inference_mode()
def test_a_later_piece_of_a_prompt_attends_as_with_a_mask(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row.alone(Memory(KVShape(1, 2, 16, 16, torch.float32, torch.device("cpu"))), 256)
    row.keys.normal_()
    row.values.normal_()
    row.filled = 50
    queries = torch.randn(30, 6, 16)
    part = Part(row.slab, [row], 30, 0)
    attended = part.attend(0, queries, How(window=window))
    monkeypatch.setattr(batch, "_attend_with_sums", None)
    torch.testing.assert_close(attended, part.attend(0, queries, How(window=window)))


@pytest.mark.parametrize("window", [None, 90])
@torch.inference_mode()
def test_where_the_device_knows_the_last_rows_of_a_mask_none_is_made(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Row.alone(Memory(KVShape(1, 2, 16, 16, torch.float32, torch.device("cpu"))), 256)
    row.keys.normal_()
    row.values.normal_()
    row.filled = 50
    queries = torch.randn(30, 6, 16)
    expected = Part(row.slab, [row], 30, 0).attend(0, queries, How(window=window))
    monkeypatch.setattr(batch, "_attend_with_sums", None)
    monkeypatch.setattr(batch, "HAVE_LOWER_RIGHT", {"cpu"})
    torch.testing.assert_close(Part(row.slab, [row], 30, 0).attend(0, queries, How(window=window)), expected)


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize(("rows", "heads"), [(1, 2), (5, 2), (5, 6)])
@torch.inference_mode()
def test_a_team_attends_as_one_thread_does(rows: int, heads: int, window: int | None, count: int) -> None:
    slab = Slab(Memory(KVShape(1, 2, 16, 8, torch.float32, torch.device("cpu"))), 256)
    for number in range(rows):
        Row(slab).filled = 30 + 20 * number
    slab.keys.normal_()
    slab.values.normal_()
    queries = torch.randn(rows, heads + 4, 16)[:, :heads]
    part = Part(slab, slab.taken, 1, 0)
    alone, together = (
        part.attend(0, queries, How(window=window)),
        part.attend(0, queries, How(window=window, means=Means(count, Team(count)))),
    )
    torch.testing.assert_close(together, alone, atol=0, rtol=0)


@torch.inference_mode()
def test_a_growing_cache_holds_what_transformers_own_holds() -> None:
    ours, theirs = GrowingLayer(), DynamicCache()
    for tokens in (5, 1, 1, 70, 1, 200):
        keys, values = torch.randn(2, 1, 2, tokens, 8)
        mine = ours.update(keys, values)
        for filled, expected in zip(mine, theirs.update(keys, values, 0), strict=True):
            assert torch.equal(filled, expected)
    assert ours.get_seq_length() == theirs.get_seq_length() == 278


@torch.inference_mode()
@pytest.mark.parametrize("family", ["llama", "mistral", "blenderbot"])
def test_a_copied_state_goes_on_apart(family: str, tiny_model: TinyModel) -> None:
    forward = Forward(loaded(tiny_model(family)))
    state = forward.start([5, 6, 7])
    forward(state, [10, 11, 12])
    other = state.copy()
    forward(other, [99])
    once = forward(state, [20])
    alone = forward.start([5, 6, 7])
    forward(alone, [10, 11, 12])
    assert torch.equal(forward(alone, [20]), once)


@torch.inference_mode()
def test_all_logits_or_the_last(tiny_model: TinyModel) -> None:
    model: Any = loaded(tiny_model("llama"))
    forward = Forward(model)
    every: Tensor = forward(forward.start(), [10, 11, 12], last_only=False)
    assert every.shape == (3, model.vocab_size)
    assert forward(forward.start(), [10, 11, 12]).shape == (1, model.vocab_size)


def test_layers_that_forget_keep_their_own_cache(tiny_model: TinyModel) -> None:
    config = loaded(tiny_model("mistral")).model.config
    assert not any(isinstance(layer, GrowingLayer) for layer in new_cache(config).layers)
    config = loaded(tiny_model("qwen2")).model.config
    assert all(isinstance(layer, GrowingLayer) for layer in new_cache(config).layers)


@torch.inference_mode()
def logits_of(model: LoadedModel) -> Tensor:
    compute: Any = model.model
    logits: Tensor = compute(torch.tensor([[5, 6, 7, 8]])).logits
    return logits


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_weights_that_were_joined_are_given_back(precision: str, tiny_model: TinyModel) -> None:
    model = loaded(tiny_model("qwen2")) if precision == "float32" else bfloat16_model(tiny_model("qwen2"))
    before = logits_of(model)
    with torch.inference_mode():
        LlamaForward(model).undo()
    assert torch.equal(logits_of(model), before)


def test_a_way_that_gives_other_numbers_is_not_taken(tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ModelSettings(name="m", source="", kv_cache_memory=1 << 22)

    def wrong(way: Any) -> None:
        right = way.__call__
        monkeypatch.setattr(way, "__call__", lambda self, batch: right(self, batch).roll(1, -1))

    def way_of(computer: Any) -> type:
        return type(computer.forward)

    folder = tiny_model("llama")
    assert way_of(computer_for(bfloat16_model(folder), settings)) is LlamaForward
    wrong(LlamaForward)
    assert way_of(computer_for(bfloat16_model(folder), settings)) is ModuleForward
    wrong(ModuleForward)
    assert isinstance(computer_for(bfloat16_model(folder), settings), InTurns)


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("llama", {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}),
        ("gpt_neo", None),
        ("blenderbot", None),
    ],
)
def test_what_cannot_be_in_rows_is_answered_in_turns(
    family: str, change: dict[str, Any] | None, tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(tiny_model(family))
    if change is not None:
        monkeypatch.setattr(model.model.config, "rope_parameters", change)
    computer = computer_for(model, ModelSettings(name="m", source="", kv_cache_memory=1 << 22))
    assert isinstance(computer, InTurns)
