"""Each sampling parameter does what it says, on logits made by hand."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from modelcompose.adapters.base import Sampling
from modelcompose.adapters.errors import ComposeError
from modelcompose.adapters.transformers.adjusting import adjust
from modelcompose.adapters.transformers.drawing import Draw, choices
from modelcompose.adapters.transformers.sampling import Sampler, with_defaults
from modelcompose.adapters.transformers.sampling import choose as choose_all

GREEDY = 0.0


@pytest.fixture(params=["PyTorch's", "compiled"], autouse=True)
def drawn_both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows holds for draws by PyTorch's operations and for compiled ones."""
    if request.param == "compiled":
        monkeypatch.setitem(globals(), "choose_all", partial(choose_all, kernels=request.getfixturevalue("kernels")))


def logits_of(*values: float) -> Tensor:
    return torch.tensor(values)


def random_logits(size: int = 500) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(3)) * 3


def choose(logits: Tensor, tokens: list[int] | None = None, times: int = 1, **fields: Any) -> list[int]:
    """`times` tokens one after the other, each time from the same logits."""
    tokens = tokens if tokens is not None else []
    sampler = Sampler(Sampling(**{"temperature": GREEDY, **fields}), tokens, eos_token_ids=frozenset({0}))
    start = len(tokens)
    for _ in range(times):
        tokens.append(chosen(sampler, logits))
    return tokens[start:]


def chosen(sampler: Sampler, logits: Tensor) -> int:
    [token] = choose_all(logits[None], [sampler])
    if isinstance(token, Exception):
        raise token
    sampler.note(token)
    return token


def draw(top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> Draw:
    return Draw(1.0, top_k, top_p, min_p, 0.5)


def test_temperature_zero_takes_the_likeliest() -> None:
    assert choose(logits_of(1, 3, 2)) == [1]


def test_temperature_scales_how_often_the_unlikely_is_drawn() -> None:
    logits = logits_of(0, math.log(3))
    assert Counter(choose(logits, times=2000, temperature=1.0, seed=1))[0] == pytest.approx(500, abs=60)
    assert Counter(choose(logits, times=2000, temperature=0.5, seed=1))[0] == pytest.approx(200, abs=45)


def test_draws_follow_the_distribution_with_and_without_filters() -> None:
    logits = random_logits(50)
    expected = logits.softmax(-1)
    for fields in ({}, {"top_k": 49}, {"top_p": 0.9999}):
        samplers = [Sampler(Sampling(temperature=1.0, seed=seed, **fields), []) for seed in range(4000)]
        counts = Counter(choose_all(logits.expand(4000, -1), samplers))
        for token in expected.topk(5).indices.tolist():
            assert counts[token] / 4000 == pytest.approx(float(expected[token]), abs=0.03)


@pytest.mark.parametrize("top_p", [0.0, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("top_k", [0, 1, 7, 300])
@pytest.mark.parametrize("min_p", [0.0, 0.05])
def test_filters_keep_what_transformers_keeps(
    top_p: float, top_k: int, min_p: float, request: pytest.FixtureRequest
) -> None:
    logits = random_logits(2000)
    warpers: list[Any] = [TopKLogitsWarper(top_k)] if top_k else []
    warpers += [TopPLogitsWarper(top_p), *([MinPLogitsWarper(min_p)] if min_p else [])]
    scores = logits[None].clone()
    for warper in warpers:
        scores = warper(None, scores)
    if request.node.callspec.params["drawn_both_ways"] == "compiled":
        kernels, count = request.getfixturevalue("kernels"), 1000
        draws = [Draw(1.0, top_k, top_p, min_p, (number + 0.5) / count) for number in range(count)]
        drawn = Counter(kernels.drawn(logits.expand(count, -1).clone(), draws))
        for token, probability in enumerate(scores[0].softmax(-1).tolist()):
            assert abs(drawn[token] - count * probability) < (1.05 if probability else 0.5)
    [choice] = choices(logits[None], [draw(top_k, top_p, min_p)])
    probabilities = torch.zeros(len(logits))
    ids = torch.arange(len(logits)) if choice.ids is None else choice.ids[0]
    probabilities[ids] = choice.probabilities[0]
    assert probabilities.nonzero().tolist() == scores[0].isfinite().nonzero().tolist()
    torch.testing.assert_close(probabilities / probabilities.sum(), scores[0].softmax(-1))


def test_min_p_alone_keeps_all_that_are_likely_enough() -> None:
    counts = Counter(choose(logits_of(0, math.log(0.5), math.log(0.05)), times=500, temperature=1.0, min_p=0.1, seed=1))
    assert set(counts) == {0, 1}


def test_a_seed_gives_the_same_draws_and_another_seed_others() -> None:
    logits = random_logits()
    first = choose(logits, times=20, temperature=1.0, seed=-7)
    assert choose(logits, times=20, temperature=1.0, seed=-7) == first
    assert choose(logits, times=20, temperature=1.0, seed=7) != first


def test_choices_of_one_seed_differ() -> None:
    logits = random_logits()
    sampling = Sampling(temperature=1.0, seed=7)
    draws = [[chosen(Sampler(sampling, [], choice=k), logits) for _ in range(1)] for k in range(8)]
    assert len({tuple(draw) for draw in draws}) > 1


def test_logit_bias_is_added() -> None:
    assert choose(logits_of(1, 3, 2), logit_bias={2: 1.5}) == [2]
    assert choose(logits_of(1, 3, 2), logit_bias={1: -100}) == [2]


def test_presence_penalty_counts_once_and_only_what_was_generated() -> None:
    assert choose(logits_of(0, 3, 2.5), [1, 1], times=5, presence_penalty=1.0) == [1, 2, 1, 1, 1]


def test_frequency_penalty_counts_every_time() -> None:
    assert choose(logits_of(0, 3, 2.5), times=5, frequency_penalty=0.4) == [1, 1, 2, 1, 2]


def test_repetition_penalty_is_transformers_and_counts_the_prompt() -> None:
    logits, seen = random_logits(20), [3, 4, 5]
    penalise: Any = RepetitionPenaltyLogitsProcessor(1.7)
    penalised = penalise(torch.tensor([seen]), logits[None].clone())[0]
    ours = logits[None].clone()
    assert adjust(ours, [Sampler(Sampling(temperature=GREEDY, repetition_penalty=1.7), seen)]) == {}
    torch.testing.assert_close(ours[0], penalised)


def test_repetition_penalty_counts_what_was_generated() -> None:
    assert choose(logits_of(0, 3, 2.5), times=3, repetition_penalty=1.5) == [1, 2, 1]


def test_min_tokens_keeps_the_end_away() -> None:
    assert choose(logits_of(9, 1, 0), [5, 5], times=4, min_tokens=2) == [1, 1, 0, 0]
    assert choose(logits_of(9, 8, 0), times=2, min_tokens=1, stop_token_ids=(1,)) == [2, 0]


@pytest.mark.parametrize("temperature", [GREEDY, 1.0])
def test_min_tokens_gives_way_where_only_an_end_is_possible(temperature: float) -> None:
    only_the_end = logits_of(1, -math.inf, -math.inf)
    assert choose(only_the_end, times=3, min_tokens=9, temperature=temperature) == [0, 0, 0]


@pytest.mark.parametrize(
    ("logits", "fields"),
    [
        (logits_of(1, math.nan, 2), {}),
        (logits_of(1, math.inf, 2), {"top_p": 0.5}),
        (logits_of(1, 2, 3), {"repetition_penalty": 1e-40}),
    ],
)
def test_no_token_is_drawn_where_there_are_no_probabilities(logits: Tensor, fields: dict[str, Any]) -> None:
    with pytest.raises(ComposeError, match="no probabilities"):
        choose(logits, [1, 2], temperature=1.0, **fields)


def test_rows_together_are_chosen_as_each_alone() -> None:
    every: list[dict[str, Any]] = [
        {},
        {"temperature": 0.9},
        {"temperature": 1.3, "top_p": 0.8},
        {"temperature": 1.0, "top_k": 300, "min_p": 0.01},
        {"temperature": 1.0, "top_k": 40},
        {"temperature": 1.0, "top_k": 100},
        {"temperature": 1.0, "top_k": 1900},
        {"repetition_penalty": 1.8},
        {"frequency_penalty": 0.7, "presence_penalty": -0.3},
        {"temperature": 1.0, "repetition_penalty": 1.2, "presence_penalty": 1.0, "logit_bias": {5: 2.0, 9: -100}},
        {"min_tokens": 8, "stop_token_ids": (2, 3)},
        {"logit_bias": {4: 3.5}, "min_tokens": 3, "temperature": 0.5},
    ]
    # Many of them are equal, as numbers in bfloat16 often are.
    logits = (torch.randn(30, len(every), 2000, generator=torch.Generator().manual_seed(0)) * 2).bfloat16()

    def said(rows: list[int]) -> list[list[int]]:
        tokens = [[7, 7, 8] for _ in rows]
        samplers = [
            Sampler(Sampling(**{"temperature": GREEDY, "seed": row, **every[row]}), own, eos_token_ids=frozenset({0}))
            for row, own in zip(rows, tokens, strict=True)
        ]
        for step in logits:
            for own, sampler, token in zip(tokens, samplers, choose_all(step[rows], samplers), strict=True):
                assert isinstance(token, int)
                own.append(token)
                sampler.note(token)
        return tokens

    everyone = list(range(len(every)))
    assert said(everyone) == [said([row])[0] for row in everyone]


def test_a_long_answer_is_penalised_token_by_token() -> None:
    logits, tokens = random_logits(400), [1, 2]
    said = choose(logits, tokens, times=150, presence_penalty=100.0)
    assert said == logits.argsort(descending=True)[:150].tolist()


def test_logits_are_left_as_they_were() -> None:
    logits = random_logits()
    before = logits.clone()
    choose(logits, temperature=0.7, top_p=0.5, presence_penalty=1.0, logit_bias={1: 5}, min_tokens=3)
    assert torch.equal(logits, before)


def test_open_fields_come_from_the_model() -> None:
    defaults = Sampling(temperature=0.6, top_p=0.95, top_k=20, repetition_penalty=1.1)
    assert with_defaults(Sampling(), defaults) == defaults
    assert with_defaults(Sampling(temperature=0.0, top_k=0), defaults).temperature == 0
    assert with_defaults(Sampling(temperature=0.0, top_k=0), defaults).top_k == 0


def test_a_greedy_model_draws_when_the_request_filters() -> None:
    greedy = Sampling(temperature=0.0)
    assert with_defaults(Sampling(), greedy).temperature == 0
    assert with_defaults(Sampling(top_p=0.9), greedy).temperature == 1
    assert with_defaults(Sampling(top_p=1.0), greedy).temperature == 0
