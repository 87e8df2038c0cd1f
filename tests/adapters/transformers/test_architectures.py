"""Every architecture of the seeds loads and generates; the weights are random."""

from __future__ import annotations

import pytest
import torch
from tiny_models import CONTEXT_LENGTH, FAMILIES, TinyModel

from modelcompose.adapters.base import GenerationRequest, ModelState
from modelcompose.adapters.events import Finish, TextDelta
from modelcompose.adapters.transformers.load import LoadedModel, load
from modelcompose.adapters.transformers.output import ChoiceOutput
from modelcompose.adapters.transformers.prompt import EncodedPrompt, PromptBuilder
from modelcompose.adapters.transformers.settings import ModelSettings

HELLO = ({"role": "user", "content": "hello, how are you?"},)


def loaded_model(tiny_model: TinyModel, family: str) -> LoadedModel:
    return load(ModelSettings(name=family, source=str(tiny_model(family)), device="cpu"), lambda state: None)


def greedy(loaded: LoadedModel, prompt: EncodedPrompt, count: int) -> list[int]:
    """The `count` new tokens that transformers itself generates."""
    ids = torch.tensor([prompt.token_ids])
    eos = torch.tensor(sorted(loaded.eos_token_ids))
    output = loaded.model.generate(  # type: ignore[operator]
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, eos_token_id=eos, num_beams=1
    )
    tokens: list[int] = output[0].tolist()
    return tokens[1:] if loaded.is_encoder_decoder else tokens[len(prompt.token_ids) :]


def text_of(loaded: LoadedModel, request: GenerationRequest, prompt: EncodedPrompt, tokens: list[int]) -> str:
    output = ChoiceOutput(loaded, request, prompt)
    events = [event for token in tokens if token not in loaded.eos_token_ids for event in output.feed(token)]
    events += output.finish("length")
    assert isinstance(events[-1], Finish)
    return "".join(event.text for event in events if isinstance(event, TextDelta))


@pytest.mark.parametrize("family", FAMILIES)
def test_architecture_loads_and_generates(family: str, tiny_model: TinyModel) -> None:
    loaded = loaded_model(tiny_model, family)
    assert loaded.is_encoder_decoder == family.startswith("blenderbot")
    assert loaded.context_length == CONTEXT_LENGTH
    assert loaded.tokenizer.eos_token_id in loaded.eos_token_ids
    chat = GenerationRequest(model=family, messages=HELLO)
    text = GenerationRequest(model=family, prompts=("Once upon a time",))
    for request in (chat, text):
        [prompt] = PromptBuilder(loaded).build(request)
        tokens = greedy(loaded, prompt, 12)
        assert len(set(tokens)) > 1, "greedy text should vary"
        assert text_of(loaded, request, prompt, tokens)


def test_progress_goes_up_to_the_weights(tiny_model: TinyModel) -> None:
    states: list[ModelState] = []
    load(ModelSettings(name="m", source=str(tiny_model("llama"))), states.append)
    assert all(state.phase == "loading" and state.detail for state in states)
    progress = [state.progress for state in states if state.progress is not None]
    assert len(progress) > 3
    assert progress == sorted(progress)
