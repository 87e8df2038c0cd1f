"""The engine by itself: what goes in, what comes out, and that requests do not disturb each other."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
import torch
from engines import PROMPT, answer, engine_of, loaded, run, text_request, whole
from tiny_models import CONTEXT_LENGTH, FAMILIES, TinyModel

from modelcompose.adapters.base import GenerationRequest, JsonConstraint, ModelCounters, RegexConstraint
from modelcompose.adapters.errors import ContextLengthExceeded, InvalidRequest, ModelUnavailable, UnsupportedParameter
from modelcompose.adapters.events import Accepted, Completion, Finish, Usage
from modelcompose.adapters.transformers.batch import Batch
from modelcompose.adapters.transformers.engine import Engine
from modelcompose.adapters.transformers.grammar import Matcher
from modelcompose.adapters.transformers.in_rows import InRows
from modelcompose.adapters.transformers.llama import LlamaForward
from modelcompose.adapters.transformers.load import LoadedModel
from modelcompose.adapters.transformers.messages import Failure

FOREVER = 200


@pytest.fixture(scope="module")
def llama(tiny_model: TinyModel) -> LoadedModel:
    return loaded(tiny_model("llama"))


@pytest.fixture
def engine(llama: LoadedModel) -> Engine:
    return engine_of(llama, 4)


def prompt_of(length: int, seed: int = 0) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(10, 300, (length,), generator=generator).tolist())


def generated(model: LoadedModel, prompt: tuple[int, ...], count: int, **config: Any) -> str:
    """The text of what transformers itself generates greedily."""
    ids = torch.tensor([prompt])
    generate: Any = model.model.generate
    output = generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count, num_beams=1, **config
    )
    new = output[0, (1 if model.is_encoder_decoder else len(prompt)) :].tolist()
    detokenizer = model.vocabulary.detokenizer(() if model.is_encoder_decoder else prompt)
    shown = [token for token in new if token not in model.vocabulary.special_ids]
    return "".join(detokenizer.feed(token) for token in shown) + detokenizer.finish()


def text(completion: Completion, choice: int = 0) -> str:
    return completion.choices[choice].text


# What the model says


@pytest.mark.parametrize("family", FAMILIES)
async def test_greedy_text_is_what_generate_says(family: str, tiny_model: TinyModel) -> None:
    model = loaded(tiny_model(family))
    prompt = prompt_of(30) if not model.is_encoder_decoder else tuple(range(5, 35))
    completion = await answer(engine_of(model, 4), text_request(prompt, max_tokens=40, ignore_eos=False))
    assert text(completion).strip() == generated(model, prompt, 40).strip()


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt_neo", "codegen"])
async def test_a_prompt_read_in_pieces_says_the_same(family: str, tiny_model: TinyModel) -> None:
    model, prompt = loaded(tiny_model(family)), prompt_of(150)
    completion = await answer(
        engine_of(model, 4, max_batch_tokens=32), text_request(prompt, max_tokens=30, ignore_eos=False)
    )
    assert text(completion) == generated(model, prompt, 30)


async def test_repetition_penalty_is_generates(engine: Engine, llama: LoadedModel) -> None:
    completion = await answer(engine, text_request(PROMPT, max_tokens=40, repetition_penalty=1.3, ignore_eos=False))
    assert text(completion) == generated(llama, PROMPT, 40, repetition_penalty=1.3)


async def test_the_models_own_processors_are_honoured(tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(tiny_model("qwen2"))
    plain = await answer(engine_of(model, 1), text_request(max_tokens=60, ignore_eos=False))
    monkeypatch.setattr(model.model.generation_config, "no_repeat_ngram_size", 1)
    other = await answer(engine_of(model, 1), text_request(max_tokens=60, ignore_eos=False))
    assert text(other) == generated(model, PROMPT, 60)
    assert text(other) != text(plain)


async def test_a_seeds_text_does_not_depend_on_neighbours(engine: Engine) -> None:
    request = text_request(prompt_of(20), temperature=1.0, seed=11, max_tokens=20)
    alone = await answer(engine, request)
    for id in range(2, 9):
        engine.add(id, text_request(prompt_of(10 * id, id), temperature=1.0, max_tokens=10 + id))
    engine.add(1, request)
    assert text(await whole(run(engine)[1])) == text(alone)
    assert text(await answer(engine, text_request(prompt_of(20), temperature=1.0, seed=12, max_tokens=20))) != text(
        alone
    )


async def test_n_choices_are_as_if_each_read_the_prompt_itself(llama: LoadedModel) -> None:
    request = text_request("Once", "upon a time", n=3, temperature=1.0, seed=5)
    roomy, narrow = await answer(engine_of(llama, 16), request), await answer(engine_of(llama, 1), request)
    assert [text(roomy, i) for i in range(6)] == [text(narrow, i) for i in range(6)]
    assert len({choice.text for choice in roomy.choices}) == 6
    assert roomy.usage == narrow.usage
    assert roomy.usage.completion_tokens == 6 * 12


def test_a_prompts_choices_share_its_reading(engine: Engine) -> None:
    engine.add(1, text_request(n=4))
    engine.step()
    assert (engine.counters.prompt_tokens, engine.counters.generated_tokens) == (len(PROMPT), 4)
    run(engine)
    assert engine.counters.prompt_tokens == len(PROMPT)


async def test_a_constraint_is_kept(engine: Engine) -> None:
    request = text_request(constraint=RegexConstraint("[ab]{3,5}!"), max_tokens=20, ignore_eos=False, temperature=1.0)
    completion = await answer(engine, request)
    assert set(text(completion)[:-1]) <= {"a", "b"}
    assert text(completion).endswith("!")
    assert completion.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("seed", range(4))
async def test_a_constrained_answer_is_the_same_with_logprobs(engine: Engine, seed: int) -> None:
    form = JsonConstraint({"type": "object", "properties": {"a": {"maximum": 9}}, "additionalProperties": False})
    request = text_request(constraint=form, max_tokens=60, ignore_eos=False, temperature=1.0, seed=seed)
    plain = await answer(engine, request)
    told = await answer(engine, msgspec.structs.replace(request, logprobs=3))
    assert text(told) == text(plain)
    assert plain.choices[0].finish_reason == "stop"
    assert isinstance(json.loads(text(told)), dict)
    assert b"".join(token.raw for token in told.choices[0].logprobs or ()).decode() == text(told)


@pytest.mark.parametrize("fields", [{"min_tokens": 20, "ignore_eos": False}, {"ignore_eos": True}])
async def test_a_form_that_is_complete_stays_so(engine: Engine, fields: dict[str, Any]) -> None:
    form = RegexConstraint("[ab]{3}!")
    completion = await answer(engine, text_request(constraint=form, max_tokens=20, temperature=1.0, **fields))
    assert text(completion)[3:] == "!"


# When it ends


async def test_max_tokens_ends_with_length(engine: Engine) -> None:
    completion = await answer(engine, text_request(max_tokens=7))
    assert (completion.choices[0].finish_reason, completion.usage) == ("length", Usage(len(PROMPT), 7))


async def test_max_length_counts_the_prompt(engine: Engine) -> None:
    completion = await answer(engine, text_request(max_tokens=None, max_length=len(PROMPT) + 5))
    assert completion.usage.completion_tokens == 5
    with pytest.raises(InvalidRequest, match="max_length is 3"):
        await answer(engine, text_request(max_length=3))


async def test_an_open_length_fills_the_context(engine: Engine) -> None:
    completion = await answer(engine, text_request(max_tokens=None))
    assert completion.usage.total_tokens == CONTEXT_LENGTH
    assert completion.choices[0].finish_reason == "length"


async def test_end_of_sequence_stops_and_is_not_shown(engine: Engine, llama: LoadedModel) -> None:
    eos = min(llama.eos_token_ids)
    completion = await answer(engine, text_request(logit_bias={eos: 1000}, ignore_eos=False))
    assert (text(completion), completion.choices[0].finish_reason) == ("", "stop")
    assert completion.usage.completion_tokens == 1
    later = await answer(engine, text_request(logit_bias={eos: 1000}, ignore_eos=False, min_tokens=4))
    assert later.usage.completion_tokens == 5


async def test_stop_token_ids_stop(engine: Engine) -> None:
    completion = await answer(engine, text_request(logit_bias={77: 1000}, stop_token_ids=(77,)))
    assert (text(completion), completion.choices[0].finish_reason) == ("", "stop")


async def test_a_stop_string_stops(engine: Engine) -> None:
    whole_text = text(await answer(engine, text_request(max_tokens=30)))
    stop = whole_text[8:11]
    completion = await answer(engine, text_request(max_tokens=30, stop=(stop,)))
    assert text(completion) == whole_text[: whole_text.index(stop)]
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.completion_tokens < 30


@pytest.mark.parametrize(("length", "asked"), [(CONTEXT_LENGTH - 5, 6), (CONTEXT_LENGTH, None), (400, 1)])
async def test_what_does_not_fit_is_refused_in_openais_words(engine: Engine, length: int, asked: int | None) -> None:
    with pytest.raises(ContextLengthExceeded, match="maximum context length is 256 tokens") as refusal:
        await answer(engine, text_request(prompt_of(length), max_tokens=asked))
    assert refusal.value.param == "prompt"


async def test_a_limit_that_may_be_cut_fills_the_context(engine: Engine) -> None:
    for limits in ({"max_tokens": 400}, {"max_tokens": None, "max_length": 400}):
        completion = await answer(engine, text_request(is_cut_to_fit=True, **limits))
        assert (completion.usage.total_tokens, completion.choices[0].finish_reason) == (CONTEXT_LENGTH, "length")
    short = await answer(engine, text_request(is_cut_to_fit=True, max_tokens=5))
    assert short.usage.completion_tokens == 5
    with pytest.raises(ContextLengthExceeded):
        await answer(engine, text_request(prompt_of(CONTEXT_LENGTH), is_cut_to_fit=True, max_tokens=400))


async def test_what_just_fits_is_answered(engine: Engine) -> None:
    completion = await answer(engine, text_request(prompt_of(CONTEXT_LENGTH - 5), max_tokens=5))
    assert completion.usage.total_tokens == CONTEXT_LENGTH


async def test_an_encoder_decoder_has_a_context_for_each_side(tiny_model: TinyModel) -> None:
    engine = engine_of(loaded(tiny_model("blenderbot")), 2)
    completion = await answer(engine, text_request(prompt_of(250), max_tokens=200))
    assert completion.usage == Usage(250, 200)
    with pytest.raises(UnsupportedParameter, match="'echo' is not supported"):
        await answer(engine, text_request(echo=True, logprobs=1))
    with pytest.raises(ContextLengthExceeded):
        await answer(engine, text_request(prompt_of(300), max_tokens=2))


# Logprobs


@torch.inference_mode()
def logprobs_by_hand(model: LoadedModel, tokens: list[int]) -> torch.Tensor:
    compute: Any = model.model
    logits: torch.Tensor = compute(torch.tensor([tokens])).logits[0]
    return logits.log_softmax(-1)


async def test_logprobs_are_the_models_own(engine: Engine, llama: LoadedModel) -> None:
    request = text_request(logprobs=3, temperature=0.7, top_k=2, seed=1, presence_penalty=1.0)
    engine.add(1, request)
    tokens = engine._requests[1].sequences[0].tokens
    completion = await whole(run(engine)[1])
    by_hand = logprobs_by_hand(llama, tokens)[len(PROMPT) - 1 : -1]
    reported = completion.choices[0].logprobs
    assert reported is not None
    assert [token.token for token in reported] == [llama.vocabulary.token_text(t) for t in tokens[len(PROMPT) :]]
    chosen = [token.logprob for token in reported]
    assert chosen == pytest.approx(
        [float(row[t]) for row, t in zip(by_hand, tokens[len(PROMPT) :], strict=True)], abs=1e-4
    )
    tops = [[other.logprob for other in token.top] for token in reported]
    assert tops == [pytest.approx(row.topk(3).values.tolist(), abs=1e-4) for row in by_hand]


async def test_the_chosen_tokens_logprob_is_the_very_same_number_in_the_list(engine: Engine) -> None:
    completion = await answer(engine, text_request(logprobs=1, max_tokens=40))
    reported = completion.choices[0].logprobs
    assert reported is not None
    assert [token.logprob for token in reported] == [token.top[0].logprob for token in reported]


@pytest.mark.parametrize("max_tokens", [0, 1])
async def test_echo_scores_the_prompt(llama: LoadedModel, max_tokens: int) -> None:
    prompt = prompt_of(70)
    engine = engine_of(llama, 1, max_batch_tokens=32)
    completion = await answer(engine, text_request(prompt, echo=True, logprobs=2, max_tokens=max_tokens))
    reported = completion.choices[0].logprobs
    assert reported is not None
    assert len(reported) == 70 + max_tokens
    assert reported[0].logprob is None
    by_hand = logprobs_by_hand(llama, list(prompt))
    expected = [float(by_hand[i - 1, prompt[i]]) for i in range(1, 70)]
    assert [token.logprob for token in reported[1:70]] == pytest.approx(expected, abs=1e-4)
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage == Usage(70, max_tokens)
    assert text(completion).startswith(str(llama.tokenizer.decode(list(prompt))))


async def test_echo_alone_costs_no_forward(engine: Engine) -> None:
    completion = await answer(engine, text_request("Once upon", echo=True, max_tokens=0))
    assert text(completion) == "Once upon"
    assert engine.counters.prompt_tokens == 0


# Whose turn it is


def test_requests_run_in_turns_and_the_rest_wait(engine: Engine) -> None:
    for id in range(1, 7):
        engine.add(id, text_request(max_tokens=FOREVER))
    engine.step()
    assert (engine.counters.running, engine.counters.waiting) == (4, 2)
    before = engine.counters.generated_tokens
    engine.step()
    assert engine.counters.generated_tokens == before + 4
    engine.cancel(1)
    engine.step()
    assert (engine.counters.running, engine.counters.waiting) == (4, 1)


def test_a_long_prompt_does_not_stop_the_others(llama: LoadedModel) -> None:
    engine = engine_of(llama, 4, max_batch_tokens=16)
    engine.add(1, text_request(max_tokens=FOREVER))
    while engine.counters.generated_tokens == 0:
        engine.step()
    engine.add(2, text_request(prompt_of(160), max_tokens=5))
    for step in range(1, 10):
        engine.step()
        assert engine.counters.generated_tokens == 1 + step
    engine.step()
    assert engine.counters.generated_tokens == 12


def test_cancelling_takes_effect_before_the_next_step(engine: Engine) -> None:
    engine.add(1, text_request(max_tokens=FOREVER))
    engine.add(2, text_request(max_tokens=FOREVER))
    engine.step()
    engine.cancel(1)
    before = engine.counters.generated_tokens
    assert {id for id, _ in engine.step()} <= {2}
    assert engine.counters.generated_tokens == before + 1
    engine.cancel(2)
    engine.cancel(2)
    engine.cancel(99)
    assert engine.is_idle
    counters = msgspec.structs.replace(engine.counters, step_seconds=0)
    assert counters == ModelCounters(
        requests=2, cancelled=2, prompt_tokens=2 * len(PROMPT), generated_tokens=3, steps=2
    )


async def test_twenty_answers_are_as_if_alone(llama: LoadedModel) -> None:
    requests = {id: text_request(prompt_of(5 + 7 * id, id), temperature=0.9, seed=id) for id in range(1, 21)}
    alone = {id: await answer(engine_of(llama, 1), request) for id, request in requests.items()}
    engine = engine_of(llama, 7)
    for id, request in requests.items():
        engine.add(id, request)
    together = {id: await whole(outcomes) for id, outcomes in run(engine).items()}
    assert together == alone


# What goes wrong


def nested(depth: int) -> dict[str, Any]:
    """A message with something in it that holds something else, and so on."""
    inner: dict[str, Any] = {}
    for _ in range(depth):
        inner = {"inner": inner}
    return {"role": "user", "content": "Hi", **inner}


def test_one_requests_fault_does_not_hurt_the_others(engine: Engine) -> None:
    engine.add(1, text_request(max_tokens=5))
    engine.add(2, text_request(constraint=RegexConstraint("(unclosed")))
    engine.add(3, text_request(logit_bias={10**9: 1}))
    engine.add(4, text_request((5, 10**9)))
    engine.add(5, text_request(()))
    engine.add(6, text_request(stop_token_ids=(10**9,), min_tokens=2))
    engine.add(7, GenerationRequest(model="tiny", messages=(nested(5000),)))
    outcomes = run(engine)
    assert isinstance(outcomes[1][-1], Usage)
    for id, param in {
        2: "structured_outputs",
        3: "logit_bias",
        4: "prompt",
        5: "prompt",
        6: "stop_token_ids",
        7: None,
    }.items():
        [failure] = outcomes[id]
        assert isinstance(failure, Failure)
        assert (failure.report.kind, failure.report.param) == ("InvalidRequest", param)


def test_a_fault_in_mid_stream_ends_one_request_only(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    engine.add(1, text_request(max_tokens=9, n=2))
    engine.add(2, text_request(max_tokens=9))
    engine.step()

    def divide(_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores * (1 / 0)

    sampler = engine._requests[1].sequences[0].sampler
    sampler._processors, sampler._is_plain = (divide,), False
    outcomes = run(engine)
    assert isinstance(outcomes[1][-1], Failure)
    assert sum(isinstance(outcome, Failure) for outcome in outcomes[1]) == 1
    assert isinstance(outcomes[2][-1], Usage)
    assert "ZeroDivisionError" in caplog.text
    assert "request 1 failed" in caplog.text
    assert "'request 1'" in outcomes[1][-1].report.message


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: no memory")],
)
async def test_out_of_memory_ends_one_request_with_a_clear_error(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    compute = LlamaForward.__call__

    def forward(self: LlamaForward, batch: Batch) -> torch.Tensor:
        if any(part.end - part.start == 33 for part in batch.parts):
            raise error
        return compute(self, batch)

    monkeypatch.setattr(LlamaForward, "__call__", forward)
    engine.add(1, text_request(max_tokens=9))
    engine.add(2, text_request(prompt_of(33)))
    outcomes = run(engine)
    assert isinstance(outcomes[1][-1], Usage)
    with pytest.raises(ModelUnavailable, match="not enough memory"):
        await whole(outcomes[2])


def test_memory_is_kept_for_the_next_answer_until_the_engine_rests(engine: Engine) -> None:
    memory = engine._computer.memory  # type: ignore[attr-defined]
    engine.add(1, text_request())
    first = run(engine)
    assert memory.kept > 0
    kept = memory.kept
    engine.add(1, text_request())
    assert run(engine) == first
    assert memory.kept == kept
    engine.rest()
    assert memory.kept == 0
    engine.add(1, text_request())
    assert run(engine)[1][-1] == first[1][-1]


async def test_an_engine_that_has_rested_is_ready_for_a_grammar(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.rest()

    def too_late(*_: object, **__: object) -> None:
        raise AssertionError("the tokenizer is taken in while somebody waits")

    monkeypatch.setattr("llguidance.hf.from_tokenizer", too_late)
    completion = await answer(engine, text_request(constraint=RegexConstraint("ab+c"), ignore_eos=False))
    assert text(completion).startswith("ab")


def test_no_memory_for_a_copy_of_the_cache_is_out_of_memory_too(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fork(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(InRows, "fork", fork)
    engine.add(1, text_request(n=2))
    engine.add(2, text_request())
    outcomes = run(engine)
    assert isinstance(outcomes[1][-1], Failure)
    assert isinstance(outcomes[2][-1], Usage)


def test_an_unexpected_error_of_the_model_is_not_hidden(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(*_: Any, **__: Any) -> torch.Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(LlamaForward, "__call__", forward)
    engine.add(1, text_request())
    with pytest.raises(RuntimeError, match="illegal memory access"):
        engine.step()


def test_events_come_in_order(engine: Engine) -> None:
    engine.add(1, text_request(n=2, max_tokens=3))
    outcomes = run(engine)[1]
    assert isinstance(outcomes[0], Accepted)
    assert isinstance(outcomes[-1], Usage)
    assert sorted(event.choice for event in outcomes if isinstance(event, Finish)) == [0, 1]


async def test_a_slow_grammar_pauses_its_own_answer_only(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    form = text_request(constraint=RegexConstraint("[ab]{30}!"), max_tokens=40, ignore_eos=False, seed=1, temperature=1)
    alone = await answer(engine, form)
    quick = Matcher.allowed

    def slow(self: Matcher) -> torch.Tensor | None:
        time.sleep(0.1)
        return quick(self)

    monkeypatch.setattr(Matcher, "allowed", slow)
    monkeypatch.setattr("modelcompose.adapters.transformers.engine.MASK_PATIENCE", 0.001)
    engine.add(1, msgspec.structs.replace(form, sampling=msgspec.structs.replace(form.sampling, max_tokens=4)))
    engine.add(2, text_request(max_tokens=FOREVER))
    before = engine.counters.steps
    assert all(isinstance(outcomes[-1], Usage) for outcomes in run(engine).values())
    assert engine.counters.steps - before <= FOREVER + 4
    monkeypatch.undo()
    assert text(await answer(engine, form)) == text(alone)
