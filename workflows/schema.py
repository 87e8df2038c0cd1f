"""The one internal form of a compose file. Every spelling users may write becomes this (`spellings.py`), and all that
reads a compose file reads only this.

A value that may hold references is kept as `Templated`: its texts are already parsed (`references.py`), its shape is
that of the file. `Setting[T]` is a T, or a template that must render to one. `${env.NAME}` is gone by now.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf

from ..adapters.quantities import NEVER, bytes_in, seconds_in
from .references import ReferenceSyntaxError, Template, mapped, parse

T = TypeVar("T")


class Verbatim(str):
    """A text that is not to be parsed, whatever it holds: an environment variable's value, or a literal `${`."""

    __slots__ = ()


def parse_deep(value: Any) -> Any:
    """`value` with every text in it parsed; a text without references stays a text."""
    return mapped(value, _parsed)


def _parsed(value: Any) -> Any:
    match value:
        case Verbatim():
            return Template((str(value),)) if "${" in value else str(value)
        case str():
            try:
                template = parse(value)
            except ReferenceSyntaxError as error:
                raise ValueError(str(error)) from error
            return value if template.parts in ((value,), ()) else template
        case _:
            return value


def _template_or_value(value: Any) -> Any:
    return parse_deep(value) if isinstance(value, str) else value


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {str(value).lower()}")  # noqa: TRY004 (pydantic wants a ValueError)
    return value


def seconds(value: Any) -> Any:
    """`90`, `1.5`, `30s`, `5m`, `1h30m`, `200ms` as seconds."""
    found = seconds_in(value) if isinstance(value, str) else None
    return _no_boolean(value) if found is None else found


def seconds_or_never(value: Any) -> Any:
    """As `seconds`; `never` is a negative number."""
    return NEVER if value == "never" else seconds(value)


def size(value: Any) -> Any:
    """`4GB`, `500MB`, `1.5GiB` as bytes."""
    found = bytes_in(value) if isinstance(value, str) else None
    return _no_boolean(value) if found is None else found


def _environment_text(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


def _base_path(path: str) -> str:
    path = path.strip("/")
    return f"/{path}" if path else ""


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise ValueError(f"must be {DEVICES}, not '{name}'")
    return name


def _server_url(url: str) -> str:
    if not re.fullmatch(r"https?://[^/?#\s]+(/[^?#\s]*)?", url):
        raise ValueError(f"must be a URL as http://host:port/v1, not '{url}'")
    return url


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _web_ui(value: Any) -> Any:
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


DEVICES = "auto, cpu, mps, cuda or cuda:N"

Templated = Annotated[Any, BeforeValidator(parse_deep)]
"""Any JSON value, with templates where the file has references."""

Setting = Annotated[InstanceOf[Template] | T, BeforeValidator(_template_or_value)]
"""A T, or a template for one."""

Whole = Annotated[int, BeforeValidator(_no_boolean)]
Number = Annotated[float, BeforeValidator(_no_boolean)]
Seconds = Annotated[float, BeforeValidator(seconds), Field(gt=0)]
SecondsOrNever = Annotated[float, BeforeValidator(seconds_or_never)]
Bytes = Annotated[int, BeforeValidator(size), Field(ge=1)]
Count = Annotated[Whole, Field(ge=1)]
NotNegative = Annotated[Whole, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Penalty = Annotated[Number, Field(ge=-2, le=2)]
Port = Annotated[Whole, Field(ge=0, le=65535)]
Name = Annotated[str, Field(min_length=1, max_length=128)]
BasePath = Annotated[str, AfterValidator(_base_path)]
ServerUrl = Annotated[str, AfterValidator(_server_url)]
Commands = tuple[str | tuple[str, ...], ...]
EnvironmentText = Annotated[str, BeforeValidator(_environment_text)]


class Form(BaseModel):
    """Base of everything in a compose file: unknown keys are errors, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


DEFAULT_MESSAGES = [
    {"role": "system", "content": "${input.system_prompt}"},
    {"role": "user", "content": "${input.user_prompt}"},
]
DEFAULT_PROMPT = "${input.prompt}"


# Where it is served ---------------------------------------------------------------------------------------------------


class WebUI(Form):
    """The page for people."""

    driver: Literal["gradio"] = Field(default="gradio", description="what draws it")
    host: str | None = Field(default=None, description="address to listen on; the controller's if left out")
    port: Port = Field(default=8081, description="port to listen on")


class Controller(Form):
    """The HTTP server of the file."""

    type: Literal["http-server"] = Field(default="http-server", description="the one kind there is")
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: Port = Field(default=8080, description="port to listen on")
    base_path: BasePath = Field(
        default="/api", description="where the runs API begins; OpenAI's routes are under /v1 in any case"
    )
    api_keys: tuple[str, ...] = Field(
        default=(), description="keys that clients must send one of; none means anyone may ask"
    )
    max_concurrent_count: Count | None = Field(default=None, description="runs at a time; further ones wait")
    webui: Annotated[WebUI | None, BeforeValidator(_web_ui)] = Field(default=WebUI(), description="`false` for none")


# Components -----------------------------------------------------------------------------------------------------------


class Params(Form):
    """How tokens are chosen; what is left out is the model's own choice."""

    max_output_length: Setting[Count] | None = Field(default=None, description="most tokens of the answer")
    min_output_length: Setting[NotNegative] | None = Field(default=None, description="fewest tokens of the answer")
    max_length: Setting[Count] | None = Field(default=None, description="most tokens of prompt and answer together")
    temperature: Setting[Annotated[Number, Field(ge=0, le=100)]] | None = Field(default=None, description="0 is greedy")
    top_p: Setting[Share] | None = Field(
        default=None, description="choose among the likeliest tokens that make up this share; 1 is off"
    )
    top_k: Setting[Annotated[Whole, Field(ge=-1)]] | None = Field(default=None, description="0 and -1 are off")
    min_p: Setting[Share] | None = Field(
        default=None, description="leave out tokens less likely than this share of the likeliest; 0 is off"
    )
    repetition_penalty: Setting[Annotated[Number, Field(gt=0, le=100)]] | None = Field(
        default=None, description="1 is none"
    )
    presence_penalty: Setting[Penalty] | None = Field(
        default=None, description="against tokens that were there already"
    )
    frequency_penalty: Setting[Penalty] | None = Field(
        default=None, description="against tokens, the more the oftener they were there"
    )
    do_sample: Setting[bool] | None = Field(default=None, description="`false` is greedy, whatever the temperature")
    num_return_sequences: Setting[Annotated[Count, Field(le=128)]] | None = Field(
        default=None, description="answers to each prompt"
    )
    stop_sequences: Setting[list[str] | str] | None = Field(default=None, description="texts that end the answer")
    seed: Setting[Whole] | None = Field(default=None, description="the same seed gives the same answer")
    pad_token_id: Setting[Whole] | None = Field(
        default=None, description="accepted for Hugging Face's sake; nothing is padded"
    )


class Action(Form):
    """One thing a component can do."""

    id: Name = Field(default="default", description="how jobs name it")
    output: Templated = Field(default=None, description="what the action gives; its plain result if left out")


class ChatAction(Action):
    """Let the model answer messages."""

    messages: Templated = Field(
        default=parse_deep(DEFAULT_MESSAGES),
        description="a list of messages, one message, or a template that gives a list",
    )
    tools: Templated = Field(default=None, description="tools the model may call, as OpenAI writes them")
    params: Params = Field(default=Params(), description="how tokens are chosen; its keys may stand on the action too")
    streaming: Setting[bool] = Field(
        default=False, description="the runs API sends the answer as it comes; OpenAI's routes do so in any case"
    )


class TextAction(Action):
    """Let the model go on with a text."""

    prompt: Templated = Field(default=parse_deep(DEFAULT_PROMPT), description="a text or a list of texts")
    echo: Setting[bool] = Field(default=True, description="whether the output begins with the prompt")
    params: Params = Field(default=Params(), description="how tokens are chosen; its keys may stand on the action too")
    streaming: Setting[bool] = Field(
        default=False, description="the runs API sends the answer as it comes; OpenAI's routes do so in any case"
    )


class HttpAction(Action):
    """Send one HTTP request."""

    method: Annotated[Literal["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"], BeforeValidator(_upper)] = (
        Field(default="POST", description="the HTTP method")
    )
    path: Setting[str] = Field(default="", description="appended to the component's base URL")
    endpoint: Setting[str] | None = Field(default=None, description="a whole URL, in place of base URL and path")
    headers: dict[str, Templated] = Field(default={}, description="over those of the component; null leaves one out")
    params: dict[str, Templated] = Field(default={}, description="the query string")
    body: Templated = Field(default=None, description="sent as JSON, or as it is if it renders to text")
    stream_format: Literal["json", "text"] | None = Field(
        default=None, description="the answer is a stream of such items"
    )
    timeout: Seconds | None = Field(default=None, description="seconds; the component's if left out")


class ShellAction(Action):
    """Run one command."""

    command: Templated = Field(
        default=None, description="a text for the shell, or a list of words to run as they stand"
    )
    env: dict[str, Templated] = Field(default={}, description="environment variables, over those of the component")
    working_dir: Setting[str] | None = Field(default=None, description="relative to the compose file")
    timeout: Seconds | None = Field(default=None, description="seconds")


class WorkflowAction(Action):
    """Run another workflow."""

    workflow: Name | None = Field(default=None, description="its id; the file's default workflow if left out")
    input: Templated = Field(default=None, description="its input; the job's if left out")


class BaseComponent(Form):
    """What every component has."""

    id: Name = Field(default="default", description="how jobs name it")
    default: bool = Field(default=False, description="used by jobs that name no component")
    max_concurrent_count: Count | None = Field(default=None, description="calls at a time; further ones wait")


class BundledModel(Form):
    """The small model that comes with the program."""

    provider: Literal["bundled"] = Field(default="bundled", description="instead of the object, `bundled` does")


class HubModel(Form):
    """A model on the Hugging Face hub."""

    provider: Literal["huggingface"] = Field(default="huggingface", description="may be left out next to `repository`")
    repository: str = Field(description="the hub id, organisation/name")
    revision: str | None = Field(default=None, description="a branch, tag or commit")
    token: str | None = Field(default=None, description="an access token for gated and private models")
    cache_dir: str | None = Field(default=None, description="where downloads are kept")
    local_files_only: bool = Field(default=False, description="download nothing")


class LocalModel(Form):
    """A model in a folder; relative paths are relative to the compose file."""

    provider: Literal["local"] = Field(default="local", description="may be left out next to `path`")
    path: str = Field(description="the folder")


class VllmServer(Form):
    """How vLLM is installed and started here; only with `driver: vllm`, and without `base_url`."""

    python: str | None = Field(
        default=None,
        description='a version in quotes, such as "3.12", or a path; the one this program runs on if left out',
    )
    packages: tuple[str, ...] = Field(
        default=("vllm",), description="what pip installs into an environment of its own, once and when this changes"
    )
    args: dict[str, Any] = Field(
        default={}, description="options of `vllm serve` without their dashes; `true` for those that take no value"
    )
    env: dict[str, EnvironmentText] = Field(
        default={}, description="environment variables; a list of NAME=VALUE does too"
    )
    timeout: Seconds = Field(default=1800, description="seconds it may take to start")


class NamedModel(Form):
    """A model or workflow that this server has anyway."""

    provider: Literal["server"] = Field(default="server", description="may be left out next to `name`")
    name: str = Field(description="as in `/v1/models`")


class BaseModelComponent(BaseComponent):
    """A language model."""

    type: Literal["model"] = Field(default="model", description="the kind of component; always given")
    driver: Literal["transformers", "vllm"] = Field(
        default="transformers", description="what runs it; `huggingface` is `transformers`"
    )
    model: Annotated[BundledModel | HubModel | LocalModel | NamedModel, Field(discriminator="provider")] | None = Field(
        default=None,
        description="`bundled`, a hub id, a path, or an object with `provider`; at a `base_url` its name there "
        "(all models there if left out)",
    )
    base_url: tuple[ServerUrl, ...] = Field(
        default=(),
        description="with `driver: vllm`: a server that has the model, or a list of them that are used as one",
    )
    manage: VllmServer = Field(
        default=VllmServer(),
        description="with `driver: vllm` and no `base_url`: how vLLM is installed and started here",
    )
    replicas: Count = Field(default=1, description="so many of these vLLM servers are started and used as one")
    api_key: str | None = Field(default=None, description="for the servers of `base_url`")
    aliases: dict[str, str] = Field(
        default={}, description="further names for models of those servers, each with the servers' name"
    )
    timeout: Seconds | None = Field(
        default=None,
        description="seconds such a server may be silent; if left out, no limit until its answer begins, then 300",
    )
    device: Annotated[str, AfterValidator(_device)] = Field(
        default="auto", description=f"{DEVICES}; auto and cuda take several GPUs where a model needs them"
    )
    precision: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        default="auto", description="the numbers to compute with"
    )
    quantization: dict[str, Any] | None = Field(default=None, description="a transformers quantization config")
    peft_adapters: tuple[str, ...] = Field(default=(), description="LoRA adapters: hub ids or folders")
    trust_remote_code: bool = Field(default=False, description="run Python code that comes with the model")
    max_model_len: Count | None = Field(default=None, description="tokens; lowers the model's own context length")
    kv_cache_memory: Bytes | None = Field(
        default=None, description="the most that keys and values of running texts may take; what is free if left out"
    )
    max_batch_tokens: Count | None = Field(
        default=None, description="tokens of prompts that are read at a time, between tokens of answers"
    )
    max_waiting_count: NotNegative | None = Field(
        default=None, description="requests that wait while `max_concurrent_count` run; further ones get 429"
    )
    compile: bool | None = Field(
        default=None,
        description="whether steps between products are compiled with this machine's C compiler (for bfloat16 on a "
        "CPU, under Linux), or steps recorded as CUDA graphs on a GPU; done where it can be if left out",
    )
    preload: bool = Field(default=True, description="`false` loads the model at its first request")
    keep_alive: SecondsOrNever | None = Field(
        default=None, description="how long the model stays loaded when nobody uses it; never unloaded if left out"
    )


class ChatModelComponent(BaseModelComponent):
    """A language model that answers messages."""

    task: Literal["chat-completion"] = Field(default="chat-completion", description="what the model does; always given")
    actions: tuple[ChatAction, ...] = Field(default=(ChatAction(),), description="what it can do")


class TextModelComponent(BaseModelComponent):
    """A language model that goes on with a text."""

    task: Literal["text-generation"] = Field(default="text-generation", description="what the model does; always given")
    actions: tuple[TextAction, ...] = Field(default=(TextAction(),), description="what it can do")


ModelComponent = ChatModelComponent | TextModelComponent


class Lifecycle(Form):
    """How a server of ours is installed, started and cleaned up; each a list of commands for the shell or of words."""

    install: Commands = Field(default=(), description="run once, and again when their text changes")
    build: Commands = Field(
        default=(), description="run once after `install`, and again when the text of either changes"
    )
    start: Commands = Field(default=(), description="the server itself; it runs until it is stopped")
    clean: Commands = Field(default=(), description="run after the server has ended")
    working_dir: str | None = Field(
        default=None,
        description="relative to the compose file; its folder if left out, where Python then imports nothing from",
    )
    env: dict[str, EnvironmentText] = Field(
        default={}, description="environment variables; a list of NAME=VALUE does too"
    )


class HttpServerComponent(BaseComponent):
    """A server that is run here and talked to."""

    type: Literal["http-server"] = Field(default="http-server", description="the kind of component; always given")
    manage: Lifecycle = Field(default=Lifecycle(), description="its keys may stand on the component too")
    port: Port = Field(default=8000, description="where it listens, on this machine")
    base_path: BasePath = Field(default="", description="before the path of every action")
    headers: dict[str, Templated] = Field(default={}, description="sent with every request")
    timeout: Seconds = Field(default=1800, description="seconds it may take to start")
    actions: tuple[HttpAction, ...] = Field(default=(), description="what it can do")


class Retry(Form):
    """When to try a request again: after connection errors, 429 and 503, waiting `delay` seconds, doubled each time."""

    attempts: Whole = Field(default=3, ge=1, le=20, description="tries in all")
    delay: Number = Field(default=0.5, ge=0, description="seconds")


class HttpClientComponent(BaseComponent):
    """A server that is only talked to."""

    type: Literal["http-client"] = Field(default="http-client", description="the kind of component; always given")
    base_url: Setting[str] | None = Field(default=None, description="before the path of every action")
    headers: dict[str, Templated] = Field(default={}, description="sent with every request")
    timeout: Seconds = Field(default=600, description="seconds without a byte")
    retry: Retry = Field(default=Retry(), description="a number stands for `attempts`")
    actions: tuple[HttpAction, ...] = Field(default=(), description="what it can do")


class ShellComponent(BaseComponent):
    """Commands on this machine."""

    type: Literal["shell"] = Field(default="shell", description="the kind of component; always given")
    env: dict[str, Templated] = Field(default={}, description="environment variables")
    working_dir: str | None = Field(default=None, description="relative to the compose file")
    timeout: Seconds = Field(default=600, description="seconds")
    actions: tuple[ShellAction, ...] = Field(default=(), description="what it can do")


class WorkflowComponent(BaseComponent):
    """Other workflows of the file."""

    type: Literal["workflow"] = Field(default="workflow", description="the kind of component; always given")
    actions: tuple[WorkflowAction, ...] = Field(default=(WorkflowAction(),), description="what it can do")


Component = Annotated[
    Annotated[ModelComponent, Field(discriminator="task")]
    | HttpServerComponent
    | HttpClientComponent
    | ShellComponent
    | WorkflowComponent,
    Field(discriminator="type"),
]


# Workflows ------------------------------------------------------------------------------------------------------------


class Job(Form):
    """One step: a call of one component's action."""

    id: Name = Field(default="default", description="how references and other jobs name it")
    component: Name | None = Field(default=None, description="the default component if left out")
    action: Name | None = Field(default=None, description="the component's only or default action if left out")
    input: Templated = Field(default=None, description="the workflow's input if left out")
    output: Templated = Field(
        default=None, description="what the job gives; its component's output, untouched, if left out"
    )
    depends_on: tuple[Name, ...] = Field(default=(), description="jobs to wait for, besides those that are referred to")
    repeat_count: Setting[NotNegative] | None = Field(
        default=None, description="run so many times, with `${index}` from 0"
    )


class OpenAIFace(Form):
    """How a workflow looks to OpenAI clients."""

    model: Name | None = Field(default=None, description="the name clients send; the workflow's id if left out")
    input: Templated = Field(
        default=None, description="the workflow's input, made of messages, prompt, request and metadata"
    )
    output: Templated = Field(
        default=None, description="what the assistant says; the output if it is text, else its only text, else JSON"
    )
    show_jobs: bool = Field(default=False, description="tell of the earlier jobs, as reasoning")


class Workflow(Form):
    """Jobs that together turn an input into an output."""

    id: Name = Field(
        default="default", description="its name, also as a model; the title in lower case with hyphens if left out"
    )
    title: str | None = Field(default=None, description="a line for people")
    description: str | None = Field(default=None, description="a text for people")
    default: bool = Field(default=False, description="run where no workflow is named")
    input: Templated = Field(default=None, description="what the jobs get as input; what the caller sent if left out")
    jobs: tuple[Job, ...] = Field(default=(), description="one that calls the default component, if left out")
    output: Templated = Field(default=None, description="the last job's output if left out")
    openai: OpenAIFace = Field(default=OpenAIFace(), description="as a model")


class ComposeFile(Form):
    """A whole compose file."""

    controller: Controller = Field(default=Controller(), description="where it is served")
    components: tuple[Component, ...] = Field(default=(), description="what does the work")
    workflows: tuple[Workflow, ...] = Field(
        default=(), description="what is offered; one for the only component, if left out"
    )
