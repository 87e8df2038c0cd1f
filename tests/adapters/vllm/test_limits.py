"""How many tokens an upstream server is asked for, where the request counts otherwise than the server does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from scripted_upstream import NAME, Asked, Step, listed, reached, says, stream, upstream, whole

from modelcompose.adapters.base import GenerationRequest, Prompt, Sampling
from modelcompose.adapters.errors import InvalidRequest, UnsupportedParameter
from modelcompose.adapters.vllm.limits import limited

PROMPT_LENGTH = 30
CONTEXT = 100


def counting(asked: Asked) -> list[Step]:
    """A server that counts every prompt as `PROMPT_LENGTH` tokens."""
    return (
        whole({"count": PROMPT_LENGTH, "max_model_len": CONTEXT}) if asked.path == "/tokenize" else stream(*says("a"))
    )


def not_counting(asked: Asked) -> list[Step]:
    return whole({"detail": "Not Found"}, 404) if asked.path == "/tokenize" else stream(*says("a"))


def chat(sampling: Sampling) -> GenerationRequest:
    return GenerationRequest(model=NAME, messages=({"role": "user", "content": "Hi"},), sampling=sampling)


def text(sampling: Sampling, *prompts: Prompt) -> GenerationRequest:
    return GenerationRequest(model=NAME, prompts=prompts or ("Hi",), sampling=sampling)


async def asked_for(request: GenerationRequest, script: Any = counting, context: int = CONTEXT) -> tuple[Any, int]:
    """The `max_tokens` that the server got, and how many prompts it was asked to count."""
    async with upstream(script, models=listed(NAME, max_model_len=context)) as server, reached(server) as adapter:
        assert [event async for event in adapter.generate(request)]
        *counted, last = server.asked
        assert "max_length" not in last.json
        assert all(each.path == "/tokenize" and each.json["model"] == NAME for each in counted)
        return last.json.get("max_tokens"), len(counted)


@pytest.mark.parametrize(
    ("sampling", "max_tokens"),
    [
        (Sampling(max_length=50), 20),
        (Sampling(max_length=50, max_tokens=7), 7),
        (Sampling(max_length=500, is_cut_to_fit=True), 70),
        (Sampling(max_tokens=500, is_cut_to_fit=True), 70),
        (Sampling(max_tokens=40, is_cut_to_fit=True), 40),
    ],
)
async def test_limits_are_counted_and_cut(sampling: Sampling, max_tokens: int) -> None:
    assert await asked_for(chat(sampling)) == (max_tokens, 1)
    assert await asked_for(text(sampling)) == (max_tokens, 1)


async def test_a_text_without_a_limit_goes_on_to_the_end_of_the_context() -> None:
    assert await asked_for(text(Sampling())) == (70, 1)


async def test_the_longest_of_several_prompts_counts() -> None:
    async def ask(body: bytes) -> bytes:
        return b'{"count": %d}' % len(json.loads(body)["prompt"])

    request = text(Sampling(), "aaa", "b" * 25, tuple(range(20)))
    assert (await limited(request, NAME, CONTEXT, ask)).sampling.max_tokens == 75


async def test_nothing_is_counted_where_it_does_not_matter() -> None:
    assert await asked_for(chat(Sampling())) == (None, 0)
    assert await asked_for(chat(Sampling(max_tokens=500))) == (500, 0)
    assert await asked_for(text(Sampling(max_tokens=5, is_cut_to_fit=True)), context=1_000_000) == (5, 0)


async def test_a_server_that_cannot_count_gets_what_was_asked_for() -> None:
    assert await asked_for(text(Sampling()), not_counting) == (None, 1)
    assert await asked_for(chat(Sampling(max_tokens=500, is_cut_to_fit=True)), not_counting) == (500, 1)
    with pytest.raises(UnsupportedParameter, match="max_length"):
        await asked_for(chat(Sampling(max_length=50)), not_counting)


async def test_a_prompt_that_is_longer_than_the_whole_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="max_length is 20, but the prompt alone has 30 tokens"):
        await asked_for(chat(Sampling(max_length=20)))
