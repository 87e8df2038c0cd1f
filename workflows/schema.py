"""The one internal form of a compose file. Every spelling users may write becomes this (`spellings.py`), and all that
reads a compose file reads only this.

A value that may hold references is kept as `Templated`: its texts are already parsed (`references.py`), its shape is
that of the file. `Setting[T]` is a T, or a template that must render to one. `${env.NAME}` is gone by now.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf

from .references import ReferenceSyntaxError, Template, parse, render

T = TypeVar("T")


class Verbatim(str):
    """A text that is not to be parsed, whatever it holds: an environment variable's value, or a literal `${`."""

    __slots__ = ()


def parse_deep(value: Any) -> Any:
    """`value` with every text in it parsed; a text without references stays a text."""
    match value:
        case Verbatim():
            return Template((str(value),)) if "${" in value else str(value)
        case str():
            try:
                template = parse(value)
            except ReferenceSyntaxError as error:
                raise ValueError(str(error)) from error
            return value if template.parts in ((value,), ()) else template
        case list():
            return [parse_deep(item) for item in value]
        case dict():
            return {key: parse_deep(item) for key, item in value.items()}
        case _:
            return value


def render_deep(value: Any, scope: Mapping[str, Any]) -> Any:
    """`value`, a parsed tree, with every template in it rendered."""
    match value:
        case Template():
            return render(value, scope)
        case list():
            return [render_deep(item, scope) for item in value]
        case dict():
            return {key: render_deep(item, scope) for key, item in value.items()}
        case _:
            return value


def _template_or_value(value: Any) -> Any:
    return parse_deep(value) if isinstance(value, str) else value


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {str(value).lower()}")  # noqa: TRY004 (pydantic wants a ValueError)
    return value


def _seconds(value: Any) -> Any:
    """`90`, `1.5`, `30s`, `5m`, `1h30m`, `200ms` as seconds."""
    if not isinstance(value, str) or not re.fullmatch(r"(?:\d+(?:\.\d+)?(?:ms|[hms]))+", value):
        return _no_boolean(value)
    pieces = re.findall(r"([\d.]+)(ms|[hms])", value)
    return sum(float(number) * _UNITS[unit] for number, unit in pieces)


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


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _web_ui(value: Any) -> Any:
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


DEVICES = "auto, cpu, mps, cuda or cuda:N"
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}

Templated = Annotated[Any, BeforeValidator(parse_deep)]
"""Any JSON value, with templates where the file has references."""

Setting = Annotated[InstanceOf[Template] | T, BeforeValidator(_template_or_value)]
"""A T, or a template for one."""

Whole = Annotated[int, BeforeValidator(_no_boolean)]
Number = Annotated[float, BeforeValidator(_no_boolean)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]
Count = Annotated[Whole, Field(ge=1)]
NotNegative = Annotated[Whole, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Penalty = Annotated[Number, Field(ge=-2, le=2)]
Port = Annotated[Whole, Field(ge=0, le=65535)]
Name = Annotated[str, Field(min_length=1, max_length=128)]
BasePath = Annotated[str, AfterValidator(_base_path)]
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

    driver: Literal["gradio"] = "gradio"
    host: str | None = Field(default=None, description="address to listen on; the controller's if left out")
    port: Port = 8081


class Controller(Form):
    """The HTTP server of the file."""

    type: Literal["http-server"] = "http-server"
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: Port = 8080
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
    top_p: Setting[Share] | None = None
    top_k: Setting[Annotated[Whole, Field(ge=-1)]] | None = Field(default=None, description="0 and -1 are off")
    min_p: Setting[Share] | None = None
    repetition_penalty: Setting[Annotated[Number, Field(gt=0, le=100)]] | None = Field(
        default=None, description="1 is none"
    )
    presence_penalty: Setting[Penalty] | None = None
    frequency_penalty: Setting[Penalty] | None = None
    do_sample: Setting[bool] | None = Field(default=None, description="`false` is greedy, whatever the temperature")
    num_return_sequences: Setting[Annotated[Count, Field(le=128)]] | None = Field(
        default=None, description="answers to each prompt"
    )
    stop_sequences: Setting[list[str] | str] | None = Field(default=None, description="texts that end the answer")
    seed: Setting[Whole] | None = None
    pad_token_id: Setting[Whole] | None = Field(
        default=None, description="accepted for Hugging Face's sake; nothing is padded"
    )


class Action(Form):
    """One thing a component can do."""

    id: Name = "default"
    output: Templated = Field(default=None, description="what the action gives; its plain result if left out")


class ChatAction(Action):
    """Let the model answer messages."""

    messages: Templated = Field(
        default=parse_deep(DEFAULT_MESSAGES),
        description="a list of messages, one message, or a template that gives a list",
    )
    tools: Templated = Field(default=None, description="tools the model may call, as OpenAI writes them")
    params: Params = Params()
    streaming: Setting[bool] = Field(
        default=False, description="the runs API sends the answer as it comes; OpenAI's routes do so in any case"
    )


class TextAction(Action):
    """Let the model go on with a text."""

    prompt: Templated = Field(default=parse_deep(DEFAULT_PROMPT), description="a text or a list of texts")
    echo: Setting[bool] = Field(default=True, description="whether the output begins with the prompt")
    params: Params = Params()
    streaming: Setting[bool] = Field(
        default=False, description="the runs API sends the answer as it comes; OpenAI's routes do so in any case"
    )


class HttpAction(Action):
    """Send one HTTP request."""

    method: Annotated[Literal["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"], BeforeValidator(_upper)] = (
        "POST"
    )
    path: Templated = Field(default="", description="appended to the component's base URL")
    endpoint: Templated = Field(default=None, description="a whole URL, in place of base URL and path")
    headers: dict[str, Templated] = {}
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
    env: dict[str, Templated] = {}
    working_dir: Templated = Field(default=None, description="relative to the compose file")
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

    provider: Literal["bundled"] = "bundled"


class HubModel(Form):
    """A model on the Hugging Face hub."""

    provider: Literal["huggingface"] = "huggingface"
    repository: str
    revision: str | None = None
    token: str | None = None
    cache_dir: str | None = None
    local_files_only: bool = False


class LocalModel(Form):
    """A model in a folder; relative paths are relative to the compose file."""

    provider: Literal["local"] = "local"
    path: str


class NamedModel(Form):
    """A model or workflow that this server has anyway."""

    provider: Literal["server"] = "server"
    name: str


class BaseModelComponent(BaseComponent):
    """A language model."""

    type: Literal["model"] = "model"
    driver: Literal["transformers", "vllm"] = "transformers"
    model: BundledModel | HubModel | LocalModel | NamedModel = Field(
        discriminator="provider", description="`bundled`, a hub id, a path, or an object with `provider`"
    )
    device: Annotated[str, AfterValidator(_device)] = Field(default="auto", description=DEVICES)
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    quantization: dict[str, Any] | None = Field(default=None, description="a transformers quantization config")
    peft_adapters: tuple[str, ...] = Field(default=(), description="LoRA adapters: hub ids or folders")
    trust_remote_code: bool = False
    max_model_len: Count | None = Field(default=None, description="tokens; lowers the model's own context length")


class ChatModelComponent(BaseModelComponent):
    """A language model that answers messages."""

    task: Literal["chat-completion"] = "chat-completion"
    actions: tuple[ChatAction, ...] = (ChatAction(),)


class TextModelComponent(BaseModelComponent):
    """A language model that goes on with a text."""

    task: Literal["text-generation"] = "text-generation"
    actions: tuple[TextAction, ...] = (TextAction(),)


ModelComponent = ChatModelComponent | TextModelComponent


class Lifecycle(Form):
    """How a server of ours is installed, started and cleaned up; each a list of commands for the shell or of words."""

    install: tuple[str | tuple[str, ...], ...] = ()
    build: tuple[str | tuple[str, ...], ...] = ()
    start: tuple[str | tuple[str, ...], ...] = ()
    clean: tuple[str | tuple[str, ...], ...] = ()
    working_dir: str | None = Field(default=None, description="relative to the compose file")
    env: dict[str, EnvironmentText] = {}


class HttpServerComponent(BaseComponent):
    """A server that is run here and talked to."""

    type: Literal["http-server"] = "http-server"
    manage: Lifecycle = Lifecycle()
    port: Port = 8000
    base_path: BasePath = ""
    headers: dict[str, Templated] = {}
    timeout: Seconds = Field(default=1800, description="seconds it may take to start")
    actions: tuple[HttpAction, ...] = ()


class Retry(Form):
    """When to try a request again: after connection errors, 429 and 503, waiting `delay` seconds, doubled each time."""

    attempts: Whole = Field(default=3, ge=1, le=20, description="tries in all")
    delay: Number = Field(default=0.5, ge=0, description="seconds")


class HttpClientComponent(BaseComponent):
    """A server that is only talked to."""

    type: Literal["http-client"] = "http-client"
    base_url: Templated = None
    headers: dict[str, Templated] = {}
    timeout: Seconds = Field(default=600, description="seconds without a byte")
    retry: Retry = Retry()
    actions: tuple[HttpAction, ...] = ()


class ShellComponent(BaseComponent):
    """Commands on this machine."""

    type: Literal["shell"] = "shell"
    env: dict[str, Templated] = {}
    working_dir: str | None = None
    timeout: Seconds = Field(default=600, description="seconds")
    actions: tuple[ShellAction, ...] = ()


class WorkflowComponent(BaseComponent):
    """Other workflows of the file."""

    type: Literal["workflow"] = "workflow"
    actions: tuple[WorkflowAction, ...] = (WorkflowAction(),)


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

    id: Name = "default"
    component: Name | None = Field(default=None, description="the default component if left out")
    action: Name | None = Field(default=None, description="the component's only or default action if left out")
    input: Templated = Field(default=None, description="the workflow's input if left out")
    output: Templated = Field(
        default=None, description="what the job gives; its component's output, untouched, if left out"
    )
    depends_on: tuple[Name, ...] = ()
    repeat_count: Setting[NotNegative] | None = Field(
        default=None, description="run so many times, with `${index}` from 0"
    )


class OpenAIFace(Form):
    """How a workflow looks to OpenAI clients."""

    model: Name | None = Field(default=None, description="the name clients send; the workflow's id if left out")
    input: Templated = Field(
        default=None, description="the workflow's input, made of messages, prompt, request and metadata"
    )
    output: Templated = Field(default=None, description="what the assistant says")
    show_jobs: bool = Field(default=False, description="tell of the earlier jobs, as reasoning")


class Workflow(Form):
    """Jobs that together turn an input into an output."""

    id: Name = "default"
    title: str | None = None
    description: str | None = None
    default: bool = False
    input: Templated = Field(default=None, description="what the jobs get as input; what the caller sent if left out")
    jobs: tuple[Job, ...] = ()
    output: Templated = Field(default=None, description="the last job's output if left out")
    openai: OpenAIFace = OpenAIFace()


class ComposeFile(Form):
    """A whole compose file."""

    controller: Controller = Controller()
    components: tuple[Component, ...] = ()
    workflows: tuple[Workflow, ...] = ()
