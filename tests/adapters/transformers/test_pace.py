"""Prompts are read as fast as running answers can bear, whatever the machine and the model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from modelcompose.adapters.transformers.pace import LEAST, LONGEST_WAIT, Pace

Seconds = Callable[[int, int], float]
"""How long a step with so many answers and so many tokens of prompts takes."""

CPU = torch.device("cpu")


def settled(seconds: Seconds, running: int, steps: int = 40) -> tuple[Pace, int]:
    """A pace after steps with and without prompts, and its last budget."""
    pace = Pace(CPU, None)
    for step in range(steps):
        tokens = pace.budget(running) if step % 3 else 0
        pace.note(running, tokens, seconds(running, tokens))
    return pace, pace.budget(running)


def small_model(running: int, tokens: int) -> float:
    return 0.004 + 0.0001 * (running + tokens)


def large_model(running: int, tokens: int) -> float:
    """Weights that take 50 ms to read, and as many multiplications as 600 tokens a second allow."""
    return max(0.05, (running + tokens) / 600)


def slow_to_read(running: int, tokens: int) -> float:
    """Weights that take 50 ms to read before anything is multiplied."""
    return 0.05 + (running + tokens) / 600


@pytest.mark.parametrize("running", [1, 4, 8])
def test_what_it_takes_to_read_the_weights_is_not_counted_as_the_prompts(running: int) -> None:
    _, budget = settled(slow_to_read, running)
    assert 0.9 * LONGEST_WAIT < slow_to_read(running, budget) <= 1.1 * LONGEST_WAIT


@pytest.mark.parametrize("running", [1, 16, 64])
def test_a_step_of_a_small_model_takes_no_longer_than_people_notice(running: int) -> None:
    _, budget = settled(small_model, running)
    assert 0.5 * LONGEST_WAIT < small_model(running, budget) <= 1.1 * LONGEST_WAIT


def test_prompts_are_not_starved_by_many_answers_of_a_large_model() -> None:
    alone = large_model(64, 0)
    _, budget = settled(large_model, 64)
    assert 2 * alone < large_model(64, budget) < 4 * alone
    assert budget > 64


@pytest.mark.parametrize("seconds", [small_model, large_model, slow_to_read])
@pytest.mark.parametrize("running", [1, 4, 16, 64])
def test_a_step_takes_four_times_one_without_prompts_at_most_or_a_quarter_second(
    seconds: Seconds, running: int
) -> None:
    _, budget = settled(seconds, running)
    assert seconds(running, budget) <= max(4 * seconds(running, 0), 0.25)


def test_a_burst_is_read_before_its_answers_have_ever_been_alone() -> None:
    pace = Pace(CPU, None)
    pace.note(0, 2048, large_model(0, 2048))
    running, left, steps = 0, 64 * 45, 0
    while left > 0:
        tokens = min(pace.budget(running), left)
        pace.note(running, tokens, large_model(running, tokens))
        left -= tokens
        running = 64 - left // 45
        steps += 1
    assert steps < 40


def test_nobody_waits_for_prompts_where_nobody_is_answered() -> None:
    pace, _ = settled(large_model, 16)
    assert pace.budget(0) == 2048


def test_something_is_read_in_every_step() -> None:
    _, budget = settled(lambda running, tokens: 0.01 * (running + tokens) + 1.0 * bool(tokens), 1)
    assert budget >= LEAST


def test_what_was_asked_for_is_kept_to() -> None:
    pace = Pace(CPU, 77)
    pace.note(4, 77, 3.0)
    assert pace.budget(4) == pace.budget(0) == 77
