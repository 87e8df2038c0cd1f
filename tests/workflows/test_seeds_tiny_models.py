"""The snippets of the seeds about local models, each on a real engine with a tiny model in its model's place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from seeds_documents import SEEDS, Seed, in_place, without, written
from tiny_models import CONTEXT_LENGTH

from modelcompose.adapters.transformers.adapter import TransformersAdapter
from modelcompose.adapters.transformers.settings import ModelSettings
from modelcompose.workflows.load import load
from modelcompose.workflows.runner import Runner

pytestmark = pytest.mark.asyncio(loop_scope="module")

TURN = {"content": "Hello.", "response": "Hi!"}
GIVEN: dict[str, dict[str, Any]] = {
    "model: microsoft/DialoGPT-medium": {"user_prompt": "Hello"},
    "pad_token_id": {"system_prompt": "Be brief.", "user_prompt": "Hello"},
    "conversation_history": {"conversation_history": [TURN], "user_prompt": "How are you?"},
    "customer_question": {"customer_question": "Hello", "code_to_review": "x = 1"},
    "additional_instructions": {"user_prompt": "Hello", "role": "pirate"},
    "model: microsoft/DialoGPT-small": {"prompt": "Once"},
    "top_k: 50": {"prompt": "Once"},
    "max_output_length: 1024": {"prompt": "Once"},
    "### Instruction": {"instruction": "Tell a story."},
    "batch_size": {"batch_size": 2, "prompts": ["Once", "Hello"]},
    "input.template": {"topic": "whales"},
}
PROMPTS = {
    "### Instruction": "### Instruction:\nTell a story.\n\n### Response:\n",
    "input.template": "Generate text about: whales",
}
SNIPPETS = [
    pytest.param(seed, block.text, sign, id=f"{seed.name}:{block.line}")
    for seed in SEEDS
    for block in seed.snippets
    for sign in GIVEN
    if sign in block.text and not seed.name.startswith("vllm")
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tiny_folder: Path) -> AsyncIterator[TransformersAdapter]:
    """What stands for every model of the hub."""
    settings = ModelSettings(name="tiny", source=str(tiny_folder), device="cpu", precision="float32")
    async with TransformersAdapter(settings) as adapter:
        await adapter.ready()
        yield adapter


def mended(snippet: str, sign: str) -> str:
    """The snippet with what keeps it from being a file of its own put right, as its error says."""
    if sign.startswith("model:"):
        other = next(line for line in snippet.splitlines() if "model: " in line and sign not in line)
        return without(snippet, other.strip())
    if sign == "input.template":
        return without(snippet, "text: ") + """  text: '${input.template | "Generate text about: ${input.topic}"}'\n"""
    return snippet


@pytest.mark.parametrize(("seed", "snippet", "sign"), SNIPPETS)
async def test_a_snippet_answers(
    seed: Seed, snippet: str, sign: str, engine: TransformersAdapter, tmp_path: Path
) -> None:
    @asynccontextmanager
    async def opened(settings: ModelSettings) -> AsyncIterator[TransformersAdapter]:
        yield engine

    (text,) = in_place(seed, mended(snippet, sign))
    if sign == "batch_size":
        text = text.replace("component:\n", "component:\n  id: text-generator\n", 1)
    compose = load(written(tmp_path, (text,)), env={})
    async with Runner(compose, open_model=opened) as runner:
        for workflow in compose.file.workflows:
            async with runner.run(workflow.id, GIVEN[sign]) as run:
                output = await run.value()
            assert 0 < run.usage.total_tokens <= CONTEXT_LENGTH * (2 if sign == "batch_size" else 1)
            if sign == "batch_size":
                one, two = output
                assert one.startswith("Once")
                assert two.startswith("Hello")
                assert one != two
            else:
                said = output["generated"] if isinstance(output, dict) else output
                assert isinstance(said, str)
                if seed.name.startswith("text-generation"):
                    assert said.startswith(PROMPTS.get(sign, "Once"))


async def test_a_batch_of_greedy_texts_gives_each_prompt_its_own_continuation(
    engine: TransformersAdapter, tmp_path: Path
) -> None:
    @asynccontextmanager
    async def opened(settings: ModelSettings) -> AsyncIterator[TransformersAdapter]:
        yield engine

    text = """
component: {type: model, task: text-generation, model: HuggingFaceTB/SmolLM3-3B, do_sample: false, max_tokens: 12}
workflow: {repeat_count: "${input.batch_size}", input: {prompt: "${input.prompts[${index}]}"}}
"""
    prompts = ["Once upon a time", "Explain", "Once upon a time"]
    compose = load(written(tmp_path, (text,)), env={})
    given = {"batch_size": 3, "prompts": prompts}
    async with Runner(compose, open_model=opened) as runner, runner.run(given=given) as run:
        first, second, third = await run.value()
    assert first == third
    assert first != second
    assert [first[: len(prompts[0])], second[: len(prompts[1])]] == prompts[:2]
