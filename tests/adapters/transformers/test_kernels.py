"""The compiled steps give what PyTorch's operations give, and are only used where they do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from engines import bfloat16_model
from tiny_models import TinyModel
from torch import Tensor
from torch.nn import functional as F

from modelcompose.adapters.bundled import MODEL_FOLDER
from modelcompose.adapters.errors import ConfigError
from modelcompose.adapters.transformers import llama
from modelcompose.adapters.transformers.batch import Batch, Means, Singles
from modelcompose.adapters.transformers.compiler import NotCompiled, library
from modelcompose.adapters.transformers.computer import computer_for
from modelcompose.adapters.transformers.forward import kv_shape
from modelcompose.adapters.transformers.in_rows import InRows
from modelcompose.adapters.transformers.kernels import Kernels, PlainSteps, compiled
from modelcompose.adapters.transformers.linear import Packed
from modelcompose.adapters.transformers.llama import LlamaForward
from modelcompose.adapters.transformers.load import load
from modelcompose.adapters.transformers.memory import KVShape, Memory
from modelcompose.adapters.transformers.rows import Row
from modelcompose.adapters.transformers.settings import ModelSettings
from modelcompose.adapters.transformers.team import threads

CPU = torch.device("cpu")
PLAIN = PlainSteps()


@pytest.fixture
def projecting(kernels: Kernels) -> Kernels:
    """Kernels that compute products; oneDNN may lay weights out in another way on other processors."""
    if not kernels.most_projected or Packed(random(128, 64), None, kernels).weights is None:
        pytest.skip("products are left to oneDNN here")
    return kernels


@pytest.fixture(params=[1, 2])
def count(request: pytest.FixtureRequest) -> Iterator[None]:
    """With one thread and with two."""
    with threads(request.param):
        yield


def random(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator).to(torch.bfloat16)


def row_of(heads: int, size: int, filled: int, length: int = 1024) -> Row:
    """A row of three layers with so many tokens."""
    row = Row.alone(Memory(KVShape(3, heads, size, size, torch.bfloat16, CPU)), length)
    row.keys.normal_()
    row.values.normal_()
    row.filled = filled
    return row


def assert_rounded(got: Tensor, expected: Tensor) -> None:
    """One rounding to bfloat16, which has 8 bits, apart."""
    torch.testing.assert_close(got.float(), expected.float(), atol=1e-4, rtol=2**-7)


@pytest.mark.usefixtures("count")
@pytest.mark.parametrize(("tokens", "size"), [(1, 48), (3, 64), (700, 384), (2, 2049)])
def test_norms_are_those_of_float32(kernels: Kernels, tokens: int, size: int) -> None:
    states, weight = random(tokens, size), random(size)
    expected = PLAIN.normed(states.float(), weight.float(), 1e-5)
    assert_rounded(kernels.normed(states, weight, 1e-5), expected)


@pytest.mark.usefixtures("count")
def test_norms_of_heads_of_tokens_that_lie_apart(kernels: Kernels) -> None:
    states, weight = random(40, 7, 24)[:, 2:5], random(24)
    expected = PLAIN.normed(states.float(), weight.float(), 1e-6)
    assert_rounded(kernels.normed(states, weight, 1e-6), expected)


@pytest.mark.usefixtures("count")
@pytest.mark.parametrize(("tokens", "heads", "size"), [(1, 1, 8), (5, 3, 64), (900, 8, 40)])
def test_vectors_are_turned_as_in_float32(kernels: Kernels, tokens: int, heads: int, size: int) -> None:
    states = random(tokens, heads + 2, size)[:, :heads]
    cos, sin = random(tokens, 1, size), random(tokens, 1, size)
    expected = PLAIN.rotated(states.float(), cos.float(), sin.float())
    torch.testing.assert_close(kernels.rotated(states, cos, sin).float(), expected, atol=2e-2, rtol=2**-7)


@pytest.mark.usefixtures("count")
@pytest.mark.parametrize(("tokens", "size"), [(1, 3), (17, 100), (900, 96)])
def test_gates_are_those_of_float32_however_wide_open(kernels: Kernels, tokens: int, size: int) -> None:
    both = random(tokens, 2 * size)
    both[0, :3] = torch.tensor([-300.0, 300.0, 0.0])
    assert_rounded(kernels.gated(both), PLAIN.gated(both.float()))


@pytest.mark.usefixtures("count")
@pytest.mark.parametrize("window", [None, 1, 100])
@pytest.mark.parametrize(
    ("filled", "heads", "kv_heads", "size"),
    [([0], 1, 1, 64), ([5, 999, 40, 256], 6, 2, 64), ([255, 0, 511], 4, 4, 128), ([300, 3], 8, 1, 48), ([9], 3, 3, 20)],
)
def test_attention_is_that_of_float32(
    kernels: Kernels, filled: list[int], heads: int, kv_heads: int, size: int, window: int | None
) -> None:
    rows = [row_of(kv_heads, size, last, length=1024 + 512 * (number % 2)) for number, last in enumerate(filled)]
    queries = random(len(filled), heads + 2, size)[:, :heads]
    got = kernels.attended(queries, kernels.places(rows), 1, kv_heads, None, window)
    for row, last in enumerate(filled):
        seen = slice(0 if window is None else max(0, last + 1 - window), last + 1)
        expected = F.scaled_dot_product_attention(
            queries[row][None, :, None].float(),
            rows[row].keys[1, None, :, seen].float(),
            rows[row].values[1, None, :, seen].float(),
            enable_gqa=True,
        )
        torch.testing.assert_close(got[row].float(), expected[0, :, 0], atol=1e-3, rtol=2**-7)


@pytest.mark.usefixtures("count")
def test_scores_of_any_size_give_numbers_and_what_is_no_number_stays_in_its_row(kernels: Kernels) -> None:
    rows, queries = [row_of(2, 64, 200) for _ in range(3)], 100 * random(3, 2, 64)
    for row in rows:
        row.keys.mul_(100)
    rows[1].keys[1, :, 7] = float("nan")
    got = kernels.attended(queries, kernels.places(rows), 1, 2, 1.0, None)
    assert got[[0, 2]].isfinite().all()
    assert got[1].isnan().all()


@pytest.mark.usefixtures("count")
@pytest.mark.parametrize("window", [None, 1, 70])
@pytest.mark.parametrize(
    ("first", "tokens", "heads", "kv_heads", "size"),
    [(0, 2, 1, 1, 64), (0, 33, 6, 2, 64), (7, 100, 4, 4, 32), (500, 300, 8, 1, 128), (255, 257, 2, 2, 64)],
)
def test_attention_of_a_piece_is_that_of_float32(
    kernels: Kernels, first: int, tokens: int, heads: int, kv_heads: int, size: int, window: int | None
) -> None:
    if not kernels.can_attend_pieces(size):
        pytest.skip("this processor multiplies no pairs of bfloat16")
    keys, values = random(kv_heads, 1024, size), random(1, kv_heads, 1024, size)[0]
    keys[:, first + tokens :], values[:, first + tokens :] = float("nan"), float("nan")
    queries = random(tokens, heads + 2, size)[:, :heads]
    got = kernels.attended_piece(queries, keys, values, first, None, window)
    places, seen = torch.arange(first, first + tokens)[:, None], torch.arange(first + tokens)
    mask = seen <= places
    if window is not None:
        mask &= seen > places - window
    known = slice(0, first + tokens)
    expected = F.scaled_dot_product_attention(
        queries.transpose(0, 1)[None].float(),
        keys[None, :, known].float(),
        values[None, :, known].float(),
        attn_mask=mask,
        enable_gqa=True,
    )
    torch.testing.assert_close(got.float(), expected[0].transpose(0, 1), atol=1.5e-2, rtol=2**-6)


def test_a_new_token_goes_to_its_place_in_its_row_and_nowhere_else(kernels: Kernels) -> None:
    rows = [row_of(2, 8, filled, length=256) for filled in (0, 255, 4)]
    keys, values = random(3, 4, 8)[:, 1:3], random(3, 2, 8)
    before = [(row.keys.clone(), row.values.clone()) for row in rows]
    kernels.keep(keys, values, kernels.places(rows), 2)
    for number, row in enumerate(rows):
        for room, old, new in zip((row.keys, row.values), before[number], (keys, values), strict=True):
            assert room[2, :, row.filled].equal(new[number])
            room[2, :, row.filled] = old[2, :, row.filled]
            assert room.equal(old)


@pytest.mark.usefixtures("count")
@pytest.mark.parametrize("tokens", [1, 2, 5, 6, 7, 13, 128])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 64), (96, 160), (130, 200), (2, 17), (384, 1001), (2100, 200)])
@torch.inference_mode()
def test_products_are_those_of_float32(projecting: Kernels, tokens: int, inputs: int, outputs: int) -> None:
    if tokens > projecting.most_projected:
        pytest.skip("others are quicker here")
    weight, bias = random(outputs, inputs) / inputs**0.5, random(outputs)
    hidden, other = random(tokens, inputs), random(tokens, outputs)
    expected = F.linear(hidden.float(), weight.float())
    for bias_or_none, whole in ((None, expected), (bias, expected + bias.float())):
        layer = Packed(weight, bias_or_none, projecting)
        assert layer.weights is not None
        torch.testing.assert_close(layer(hidden).float(), whole, atol=1e-3, rtol=2**-7)
        torch.testing.assert_close(layer.plus(hidden, other).float(), whole + other.float(), atol=1e-3, rtol=2**-7)
        together = layer(hidden)
        for token in range(tokens):
            assert layer(hidden[token : token + 1])[0].equal(together[token])


def test_several_callers_at_once_and_more_threads_than_cores_give_the_same(kernels: Kernels) -> None:
    rows, both = [row_of(2, 64, filled) for filled in range(100, 900, 7)], random(64, 20_000)
    queries, places = random(len(rows), 6, 64), kernels.places(rows)
    attended, gated = kernels.attended(queries, places, 0, 2, None, None), kernels.gated(both)

    def same(count: int) -> bool:
        with torch.inference_mode(), threads(count):
            return all(
                kernels.attended(queries, places, 0, 2, None, None).equal(attended) and kernels.gated(both).equal(gated)
                for _ in range(20)
            )

    with ThreadPoolExecutor(4) as callers:
        assert all(callers.map(same, (2, 9, 3, 5)))


@torch.inference_mode()
def test_weights_that_lie_otherwise_and_many_tokens_are_left_to_onednn(
    projecting: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight, hidden = random(160, 96), random(3, 96)
    expected = Packed(weight)(hidden)
    assert Packed(random(160, 97), None, projecting).weights is None
    many = random(projecting.most_projected + 1, 96)
    assert Packed(weight, None, projecting)(many).equal(Packed(weight)(many))
    monkeypatch.setattr(Kernels, "projected", None)
    reorder = torch.ops.mkldnn._reorder_linear_weight
    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", lambda given, at: reorder(given.flip(0), at))
    turned = Packed(weight, None, projecting)
    assert turned.weights is None
    torch.testing.assert_close(turned(hidden).flip(-1), expected)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "smollm3"])
@torch.inference_mode()
def test_a_step_of_single_tokens_in_one_call_is_that_layer_by_layer(
    family: str, projecting: Kernels, tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = computed(tiny_model(family)).forward
    assert isinstance(forward, LlamaForward)
    shape = kv_shape(bfloat16_model(tiny_model(family)))
    rows = [Row.alone(Memory(shape), 256) for _ in range(3)]
    for number, row in enumerate(rows):
        row.keys.normal_()
        row.values.normal_()
        row.filled = 9 + 40 * number

    def logits() -> tuple[Tensor, Tensor]:
        got = forward(Batch.of([Singles(rows, 0, projecting)], [5, 6, 7], [0, 1, 2], Means(kernels=projecting)))
        return got, torch.stack([row.keys[:, :, row.filled] for row in rows])

    at_once = logits()
    monkeypatch.setattr(Kernels, "decoded", None)
    with pytest.raises(TypeError):
        logits()
    monkeypatch.setattr(forward, "_for_kernels", None)
    for one, other in zip(at_once, logits(), strict=True):
        assert one.equal(other)


def computed(folder: Path, compile: bool | None = None) -> InRows:
    """What computes a model in bfloat16."""
    settings = ModelSettings(name="m", source=str(folder), device="cpu", precision="bfloat16", compile=compile)
    settings = msgspec.structs.replace(settings, kv_cache_memory=1 << 24)
    computer = computer_for(load(settings, lambda _state: None), settings)
    assert isinstance(computer, InRows)
    return computer


@pytest.mark.parametrize("family", ["llama", "qwen3", "smollm3", "gpt2"])
def test_models_are_computed_with_kernels_unless_they_are_not_wanted(
    family: str, kernels: Kernels, tiny_model: TinyModel
) -> None:
    assert computed(tiny_model(family)).kernels is not None
    assert computed(tiny_model(family), compile=True).kernels is not None
    assert computed(tiny_model(family), compile=False).kernels is None


@pytest.mark.parametrize(
    "step", ["normed", "rotated", "gated", "keep", "attended", "attended_piece", "projected", "decoded"]
)
def test_kernels_that_give_other_numbers_are_not_used(
    step: str, kernels: Kernels, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if step == "attended_piece" and not kernels.can_attend_pieces(64):
        pytest.skip("this processor multiplies no pairs of bfloat16")
    if step in ("projected", "decoded"):
        request.getfixturevalue("projecting")
    if step in ("keep", "attended"):
        monkeypatch.setattr(llama, "for_kernels", lambda *_: None)
    right = getattr(Kernels, step)

    def wrong(self: Kernels, *given: Any) -> object:
        at = 1 if step == "decoded" else 0  # of its states
        return right(self, *given[:at], given[at].roll(1, -1), *given[at + 1 :])

    monkeypatch.setattr(Kernels, step, wrong)
    computer = computed(MODEL_FOLDER)
    assert computer.kernels is None
    assert type(computer.forward) is LlamaForward


def test_kernels_are_of_bfloat16_on_a_cpu_only() -> None:
    with pytest.raises(NotCompiled, match="float32"):
        compiled(None, torch.float32, CPU)
    with pytest.raises(ConfigError, match=r"compile is true, but .*float32"):
        compiled(True, torch.float32, CPU)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "model-compose"


def test_without_a_compiler_it_is_said_what_is_missing(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NotCompiled, match="no C compiler"):
        library()
    with pytest.raises(ConfigError, match="no C compiler"):
        compiled(True, torch.bfloat16, CPU)


@pytest.mark.parametrize(("compiler", "says"), [("false", "false fails: exit status 1"), ("/nowhere/cc", "cannot be")])
def test_a_compiler_that_fails_leaves_nothing_behind(
    compiler: str, says: str, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(NotCompiled, match=says):
        library()
    assert list(empty_cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(
    kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model-compose").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(NotCompiled, match="File exists"):
        library()


def test_two_processes_at_once_make_one_library_that_is_used_again(kernels: Kernels, empty_cache: Path) -> None:
    command = [sys.executable, "-c", f"from {library.__module__} import library; print(library())"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    (first,) = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert [str(path) for path in empty_cache.iterdir()] == [first]
    made = Path(first).stat().st_mtime_ns
    assert str(library()) == first
    assert Path(first).stat().st_mtime_ns == made
