"""Every YAML snippet of the seeds, put into its example as its reader would, does what its document says.

`test_seeds_commands.py` runs the documents' command lines.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from composing import echoing, only_talking
from scripted import ScriptedAdapter
from seeds_documents import (
    GIVEN,
    SEEDS,
    SIGNS,
    Paste,
    Seed,
    about,
    all_ways,
    every_seed,
    every_spelling,
    in_place,
    on_tops,
    rows,
    without,
    written,
)
from upstream import deltas, streams, upstream

from modelcompose.adapters.base import GenerationRequest
from modelcompose.adapters.errors import InvalidRequest
from modelcompose.adapters.transformers.settings import ModelSettings
from modelcompose.workflows.inputs import inputs_of
from modelcompose.workflows.load import Compose, load
from modelcompose.workflows.runner import Runner
from modelcompose.workflows.schema import HttpServerComponent
from modelcompose.workflows.tree import ConfigErrors

SAID = "You said: "
DIGESTS = {
    "chat-completion.en": "111fbc03ae68802d",
    "chat-completion.ko": "f4f311d855e115ef",
    "chat-completion.zh": "257ac825a8720d19",
    "text-generation.zh": "ed9f7e2a120dd162",
    "vllm-chat-completion-stream.zh": "3cd1e882136eb79c",
}


class Scripted:
    """The models that a file's components open, answering with what they are asked."""

    def __init__(self) -> None:
        self.sources: list[str] = []
        self.requests: list[GenerationRequest] = []

    @asynccontextmanager
    async def open(self, settings: ModelSettings) -> AsyncIterator[ScriptedAdapter]:
        self.sources.append(settings.source)
        adapter = ScriptedAdapter({settings.name: echoing})
        adapter.requests = self.requests
        yield adapter


async def run(
    paths: list[Path], given: Any, *, workflow: str | None = None, models: Scripted | None = None
) -> tuple[Any, list[GenerationRequest]]:
    """What a workflow gives, and what it asked its models."""
    models = models or Scripted()
    compose = only_talking(load(paths, env={}))
    async with Runner(compose, open_model=models.open) as runner, runner.run(workflow, given) as each:
        return await each.value(), models.requests


def contents(request: GenerationRequest) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in request.messages]


def test_the_documents_are_as_they_were_written() -> None:
    assert {seed.name: hashlib.sha256(seed.page.encode()).hexdigest()[:16] for seed in SEEDS} == DIGESTS


def test_every_snippet_is_tried_by_one_test() -> None:
    for seed in SEEDS:
        for block in seed.snippets:
            assert len([sign for sign in SIGNS if sign in block.text]) == 1, (seed.name, block.line)
    counts = {sign: sum(sign in block.text for seed in SEEDS for block in seed.snippets) for sign in SIGNS}
    assert counts == SIGNS
    assert sum(counts.values()) == 22


# Another model -------------------------------------------------------------------------------------------------------


@all_ways
@about("  model: microsoft/DialoGPT-", count=4)
async def test_two_models_are_one_too_many_and_either_alone_is_taken(
    seed: Seed, snippet: str, paste: Paste, tmp_path: Path
) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(written(tmp_path, paste(seed, snippet)), env={})
    lines = paste(seed, snippet)[-1].splitlines()
    first, second = (number for number, line in enumerate(lines, 1) if line.strip().startswith("model: "))
    assert f"component.model: 'model' is given twice, on lines {first} and {second}" in str(caught.value)
    names = [line.split()[1] for line in snippet.splitlines() if line.strip().startswith("model: ")]
    for name, other in (names, names[::-1]):
        models = Scripted()
        given = {"prompt": "Hi"} if "text-generation" in snippet else GIVEN
        output, _ = await run(written(tmp_path, paste(seed, without(snippet, f"model: {other}"))), given, models=models)
        assert output["generated"].endswith(SAID + str(given.get("prompt", given.get("user_prompt"))))
        assert models.sources == [name]


# Parameters ----------------------------------------------------------------------------------------------------------


@all_ways
@about("pad_token_id", count=3)
async def test_parameters_of_a_chat(seed: Seed, snippet: str, paste: Paste, tmp_path: Path) -> None:
    paths = written(tmp_path, paste(seed, snippet))
    for given, temperature in ((GIVEN, 0.7), ({**GIVEN, "temperature": 0.2}, 0.2), ({**GIVEN, "temperature": "1"}, 1)):
        output, (request,) = await run(paths, given)
        assert output == {"generated": SAID + GIVEN["user_prompt"]}
        assert (request.sampling.temperature, request.sampling.max_length) == (temperature, 2048)
        assert contents(request) == [("system", GIVEN["system_prompt"]), ("user", GIVEN["user_prompt"])]
    with pytest.raises(InvalidRequest, match=r"'input\.temperature' must be a number, not 'warm'"):
        await run(paths, {**GIVEN, "temperature": "warm"})


@all_ways
@about("top_k: 50", count=1)
async def test_parameters_of_a_text(seed: Seed, snippet: str, paste: Paste, tmp_path: Path) -> None:
    output, (request,) = await run(written(tmp_path, paste(seed, snippet)), {"prompt": "Once"})
    assert output == {"generated": f"Once{SAID}Once"}
    sampling = request.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.top_k) == (32768, 0.7, 0.9, 50)
    assert sampling.repetition_penalty == 1.1


@all_ways
@about("max_output_length: 1024", count=1)
async def test_parameters_of_a_text_from_the_input(seed: Seed, snippet: str, paste: Paste, tmp_path: Path) -> None:
    paths = written(tmp_path, paste(seed, snippet))
    for more, temperature, top_p in (({}, 0.7, 0.9), ({"temperature": 0, "top_p": "0.5"}, 0, 0.5)):
        output, (request,) = await run(paths, {"prompt": "Once", **more})
        assert output == {"generated": f"Once{SAID}Once"}
        sampling = request.sampling
        assert (sampling.max_tokens, sampling.temperature, sampling.top_p) == (1024, temperature, top_p)


# Messages and prompts ------------------------------------------------------------------------------------------------


@all_ways
@about("conversation_history", count=3)
async def test_a_conversation_of_several_turns(seed: Seed, snippet: str, paste: Paste, tmp_path: Path) -> None:
    paths = written(tmp_path, paste(seed, snippet))
    history = [{"content": "My name is Anna.", "response": "Hello, Anna!"}]
    _, (request,) = await run(paths, {"conversation_history": history, "user_prompt": "What is my name?"})
    assert contents(request) == [
        ("system", "You are a helpful assistant."),
        ("user", "My name is Anna."),
        ("assistant", "Hello, Anna!"),
        ("user", "What is my name?"),
    ]
    _, (request,) = await run(paths, {"system-prompt": "Be brief.", "user_prompt": "Hello"})
    assert contents(request) == [("system", "Be brief."), ("user", "Hello")]


@all_ways
@about("additional_instructions", count=2)
async def test_a_system_message_of_parts(seed: Seed, snippet: str, paste: Paste, tmp_path: Path) -> None:
    paths = written(tmp_path, paste(seed, snippet))
    _, (request,) = await run(paths, {"user_prompt": "Hello"})
    assert contents(request)[0] == (
        "system",
        "You are a helpful assistant.\n\nAlways be professional and friendly.\n",
    )
    given = {"role": "pirate", "additional_instructions": "Answer in rhymes.", "tone": "loud", "user_prompt": "Hello"}
    _, (request,) = await run(paths, given)
    assert contents(request)[0] == ("system", "You are a pirate.\nAnswer in rhymes.\nAlways be loud.\n")


@about("customer_question", count=2)
async def test_roles_are_workflows(seed: Seed, snippet: str, tmp_path: Path) -> None:
    paths = written(tmp_path, in_place(seed, snippet))
    asked = {
        "customer-support": ("customer_question", "Where is my order?", "You are a customer support agent. Be helpful"),
        "code-reviewer": ("code_to_review", "x = 1/0", "You are a senior software engineer. Review code for bugs"),
    }
    for workflow, (name, text, system) in asked.items():
        output, (request,) = await run(paths, {name: text}, workflow=workflow)
        assert output == SAID + text
        assert contents(request)[0][1].startswith(system)
        assert contents(request)[1:] == [("user", text)]
        with pytest.raises(InvalidRequest) as caught:
            await run(paths, {}, workflow=workflow)
        assert caught.value.param == name


@all_ways
@about("### Instruction", count=1)
async def test_a_template_around_the_prompt(seed: Seed, snippet: str, paste: Paste, tmp_path: Path) -> None:
    output, (request,) = await run(written(tmp_path, paste(seed, snippet)), {"instruction": "Write a poem."})
    prompt = "### Instruction:\nWrite a poem.\n\n### Response:\n"
    assert request.prompts == (prompt,)
    assert output["generated"].startswith(prompt)
    assert request.sampling.max_tokens == 2048


@all_ways
@about("input.template", count=1)
async def test_an_unquoted_colon_is_told_with_the_quoted_form(
    seed: Seed, snippet: str, paste: Paste, tmp_path: Path
) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(written(tmp_path, paste(seed, snippet)), env={})
    assert "a text that holds ': ' has to be in quotes" in caught.value.message
    quoted = caught.value.message.splitlines()[1].strip()
    assert quoted.startswith("text: '")
    mended = without(snippet, "text: ") + f"  {quoted}\n"
    paths = written(tmp_path, paste(seed, mended))
    for given, prompt in (
        ({"topic": "whales"}, "Generate text about: whales"),
        ({"template": "Say hello."}, "Say hello."),
    ):
        _, (request,) = await run(paths, given)
        assert request.prompts == (prompt,)


@about("batch_size", count=1)
async def test_a_batch_gives_a_result_for_each_prompt_in_order(seed: Seed, snippet: str, tmp_path: Path) -> None:
    (text,) = in_place(seed, snippet)
    with pytest.raises(
        ConfigErrors, match="there is no component 'text-generator'; components are named by their 'id'"
    ):
        load(written(tmp_path, (text,)), env={})
    paths = written(tmp_path, (text.replace("component:\n", "component:\n  id: text-generator\n", 1),))
    for given in (
        {"batch_size": 2, "prompts": ["one", "two"]},
        {"batch_size": "2", "prompts": ["one", "two", "three"]},
    ):
        output, requests = await run(paths, given)
        assert output == [f"one{SAID}one", f"two{SAID}two"]
        assert len(requests) == 2
    with pytest.raises(InvalidRequest) as caught:
        await run(paths, {"prompts": ["one"]})
    assert caught.value.param == "batch_size"


# A server of one's own -----------------------------------------------------------------------------------------------


def server_of(compose: Compose) -> HttpServerComponent:
    (component,) = compose.file.components
    assert isinstance(component, HttpServerComponent)
    return component


@all_ways
@about("start:", count=2)
def test_a_list_of_one_command_line_is_that_line(seed: Seed, snippet: str, paste: Paste, tmp_path: Path) -> None:
    component = server_of(load(written(tmp_path, paste(seed, snippet)), env={}))
    line = " ".join(snippet.partition("- ")[2].split())
    assert component.manage.start == (line,)
    assert line.startswith("python -m vllm.entrypoints.openai.api_server --model ")


@on_tops
@about("max_tokens: ${input", count=1)
async def test_a_body_with_parameters_from_the_input(seed: Seed, snippet: str, paste: Paste, tmp_path: Path) -> None:
    async with upstream(streams(*deltas("Hel", "lo"), b"data: [DONE]\n\n")) as server:
        texts = [text.replace("port: 8000", f"port: {server.port}") for text in paste(seed, snippet)]
        paths = written(tmp_path, tuple(texts))
        assert (await run(paths, {"prompt": "Hi"}))[0] == "Hello"
        assert (await run(paths, {"prompt": "Hi", "max_tokens": 5, "temperature": "0.1", "top_p": 1}))[0] == "Hello"
    common = {"model": "qwen2-7b-instruct", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    assert [asked.json for asked in server.asked] == [
        {**common, "max_tokens": 1024, "temperature": 0.7, "top_p": 0.9},
        {**common, "max_tokens": 5, "temperature": 0.1, "top_p": 1},
    ]
    assert isinstance(server.asked[0].json["max_tokens"], int)


# Tables --------------------------------------------------------------------------------------------------------------

INPUTS = ("Input Parameters", "输入参数", "입력 매개변수")
OUTPUTS = ("Output Format", "输出格式", "출력 형식")
YES_AND_NO = {"Yes": True, "是": True, "예": True, "No": False, "否": False, "아니오": False}


@every_spelling
@every_seed
def test_the_table_of_inputs_is_what_the_example_reads(seed: Seed, spelling: str) -> None:
    compose = load([seed.spelled(spelling)], env={})
    read = [
        (each.name, each.type, each.required, "-" if each.default is None else str(each.default))
        for each in inputs_of(compose.file.workflows[0], compose.file)
    ]
    told = [(name, type, YES_AND_NO[required], default) for name, type, required, default, *_ in rows(seed, *INPUTS)]
    assert read == told
    assert told


@every_spelling
@every_seed
async def test_the_table_of_outputs_is_what_the_example_gives(seed: Seed, spelling: str, tmp_path: Path) -> None:
    ((name, type, *_),) = rows(seed, *OUTPUTS)
    assert type.split()[0] == "text"
    async with upstream(streams(*deltas("Hel", "lo"), b"data: [DONE]\n\n")) as server:
        text = seed.spelled(spelling).read_text(encoding="utf-8").replace("port: 8000", f"port: {server.port}")
        output, requests = await run(written(tmp_path, (text,)), {**GIVEN, "prompt": "Once"})
    if name == "-":
        assert output == "Hello"
        assert (server.asked[0].json["max_tokens"], server.asked[0].json["temperature"]) == (512, 0.7)
    else:
        (request,) = requests
        assert output == {name: f"Once{SAID}Once" if request.prompts else SAID + GIVEN["user_prompt"]}


@every_spelling
@every_seed
def test_the_title_and_the_ports_are_the_documents(seed: Seed, spelling: str) -> None:
    compose = load([seed.spelled(spelling)], env={})
    assert compose.file.workflows[0].title is not None
    controller = compose.file.controller
    assert f"http://localhost:{controller.port}{controller.base_path}/workflows/runs" in seed.page
    assert controller.webui is not None
    assert f"http://localhost:{controller.webui.port}\n" in seed.page
