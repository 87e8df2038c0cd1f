"""The bodies of requests: types and ranges of OpenAI's API, and the fields of vLLM and Hugging Face that fit in.

Null counts as absent. Fields that are not here land in `model_extra`. What is here and cannot be honoured is refused in
`decode.py`, so that the client hears its name.

Lists fail at their first wrong item and objects are cut before they are checked: telling of a million faults would take
a minute and gigabytes.
"""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from .messages import ChatMessage, ChatTool, Function, Name

_INT32 = 2**31 - 1
_MOST_METADATA = 16

Count = Annotated[int, Field(ge=0, le=_INT32)]
TokenId = Annotated[int, Field(ge=0, le=_INT32)]
Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Probability = Annotated[float, Field(ge=0, le=1)]
Hint = Annotated[str, Field(description="Accepted; it has no effect here.")]


Texts = Annotated[list[str], Field(fail_fast=True)]


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class StreamOptions(_Open):
    """What a stream tells beside the answer; `continuous_usage_stats` (of vLLM) puts usage on every chunk."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    continuous_usage_stats: bool | None = None


class JsonSchema(_Open):
    """A named JSON schema that the answer must fit."""

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_-]+$")]
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class TextFormat(_Open):
    type: Literal["text"]


class JsonObjectFormat(_Open):
    """Any JSON object; `schema` (of llama.cpp) narrows it."""

    type: Literal["json_object"]
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None


class JsonSchemaFormat(_Open):
    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class StructuredOutputs(_Open):
    """A form the answer must have, as vLLM spells it; one of these."""

    json_: Annotated[dict[str, Any] | str | None, Field(alias="json")] = None
    json_object: bool | None = None
    regex: str | None = None
    choice: Texts | None = None
    grammar: str | None = None
    structural_tag: Any = None


def _kind_of_stop(value: object) -> str | None:
    return "text" if isinstance(value, str) else "texts" if isinstance(value, list) else None


Stop = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[str], Field(max_length=4, fail_fast=True), Tag("texts")],
    Discriminator(_kind_of_stop, "invalid_type", "a string or an array of strings"),
]


def _first_wrong_bias(given: object) -> object:
    """Only the first wrong entry, if there is one."""
    if isinstance(given, dict):
        for key, bias in given.items():
            if type(bias) not in {int, float} or not -100 <= bias <= 100:
                return {key: bias}
    return given


LogitBias = Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], BeforeValidator(_first_wrong_bias)]


class Body(_Open):
    """What both endpoints take."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stop: Stop | None = None
    seed: Int64 | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Probability | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    user: Hint | None = None

    top_k: Annotated[int, Field(ge=-1, le=_INT32, description="0 and -1 are off.")] | None = None
    min_p: Probability | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    min_tokens: Count | None = None
    max_length: Annotated[int, Field(ge=1, le=_INT32, description="Tokens of prompt and answer together.")] | None = (
        None
    )
    stop_token_ids: Annotated[list[TokenId], Field(fail_fast=True)] | None = None
    ignore_eos: bool | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: Texts | None = None
    guided_grammar: str | None = None


class NamedFunction(_Open):
    name: Name


class FunctionChoice(_Open):
    type: Literal["function"]
    function: NamedFunction


class CustomChoice(_Open):
    type: Literal["custom"]
    custom: dict[str, Any]


class AllowedTools(_Open):
    mode: Literal["auto", "required"]
    tools: Annotated[list[FunctionChoice], Field(min_length=1, fail_fast=True)]


class AllowedChoice(_Open):
    """Only some of the tools may be called this time."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


def _kind_of_choice(value: object) -> str | None:
    return "mode" if isinstance(value, str) else "object" if isinstance(value, dict) else None


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("mode")]
    | Annotated[
        Annotated[FunctionChoice | CustomChoice | AllowedChoice, Field(discriminator="type")],
        Tag("object"),
    ],
    Discriminator(_kind_of_choice, "invalid_type", "a string or an object"),
]
OldFunctionChoice = Annotated[
    Annotated[Literal["none", "auto"], Tag("mode")] | Annotated[NamedFunction, Tag("object")],
    Discriminator(_kind_of_choice, "invalid_type", "a string or an object"),
]


def _first_pairs(given: object) -> object:
    return dict(islice(given.items(), _MOST_METADATA + 1)) if isinstance(given, dict) else given


Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=_MOST_METADATA, description="Accepted; it has no effect here."),
    BeforeValidator(_first_pairs),
]


class ChatBody(Body):
    """POST /v1/chat/completions"""

    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=_INT32)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=_INT32, description="Older name of max_completion_tokens.")] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[ChatTool], Field(fail_fast=True)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[Function], Field(min_length=1, max_length=128, fail_fast=True)] | None = None
    function_call: OldFunctionChoice | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    documents: Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = None

    metadata: Metadata | None = None
    moderation: dict[str, Any] | None = None
    modalities: Annotated[list[Literal["text", "audio"]], Field(fail_fast=True)] | None = None
    audio: dict[str, Any] | None = None
    prediction: Annotated[dict[str, Any], Field(description="A hint for speed; it has no effect here.")] | None = None
    prompt_cache_key: Hint | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    safety_identifier: Annotated[str, Field(max_length=64)] | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    store: bool | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    web_search_options: dict[str, Any] | None = None
    chat_template: str | None = None


def _kind_of_prompt(value: object) -> str | None:
    match value:
        case str():
            return "text"
        case [int(), *_]:
            return "tokens"
        case [list(), *_]:
            return "token lists"
        case list():
            return "texts"
        case _:
            return None


Tokens = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
Prompt = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[list[str], Field(min_length=1, fail_fast=True), Tag("texts")]
    | Annotated[Tokens, Tag("tokens")]
    | Annotated[list[Tokens], Field(min_length=1, fail_fast=True), Tag("token lists")],
    Discriminator(_kind_of_prompt, "invalid_type", "a string, an array of strings, or an array of token ids"),
]


class CompletionBody(Body):
    """POST /v1/completions"""

    prompt: Prompt | None
    max_tokens: Count | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Field(ge=0, le=20)] | None = None
    suffix: str | None = None
