"""The shapes of chat messages and tools as clients send them; extra keys are kept for the chat template.

Source: OpenAI's CreateChatCompletionRequest. Beyond it: `reasoning` and `reasoning_content` on assistant messages,
`image_url` as a bare string, and null wherever a field may be left out.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Discriminator, Field, Tag
from typing_extensions import TypedDict

_OPEN = ConfigDict(extra="allow", strict=True)

Name = Annotated[str, Field(min_length=1, max_length=64)]


class TextPart(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    type: Literal["text"]
    text: str


class RefusalPart(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    type: Literal["refusal"]
    refusal: str


class ImageUrl(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    url: str
    detail: NotRequired[Literal["auto", "low", "high", "original"] | None]


def _kind_of_url(value: object) -> str | None:
    return "text" if isinstance(value, str) else "object" if isinstance(value, dict) else None


class ImagePart(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    type: Literal["image_url"]
    image_url: Annotated[
        Annotated[str, Tag("text")] | Annotated[ImageUrl, Tag("object")],
        Discriminator(_kind_of_url, "invalid_type", "an object with a url, or a string"),
    ]


class InputAudio(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    data: str
    format: Literal["wav", "mp3"]


class AudioPart(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    type: Literal["input_audio"]
    input_audio: InputAudio


class FilePart(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    type: Literal["file"]
    file: dict[str, Any]


Part = Annotated[TextPart | RefusalPart | ImagePart | AudioPart | FilePart, Field(discriminator="type")]


def _kind_of_content(value: object) -> str | None:
    return "text" if isinstance(value, str) else "parts" if isinstance(value, list) else None


Content = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[Part], Field(min_length=1, fail_fast=True), Tag("parts")],
    Discriminator(_kind_of_content, "invalid_type", "a string or an array of content parts"),
]


class FunctionCall(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    name: str
    arguments: str


class FunctionToolCall(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    id: NotRequired[str | None]
    type: Literal["function"]
    function: FunctionCall


class CustomToolCall(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    id: str
    type: Literal["custom"]
    custom: dict[str, Any]


class SystemMessage(TypedDict):
    """Instructions that stand above what the user says."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    role: Literal["system", "developer"]
    content: Content
    name: NotRequired[str | None]


class UserMessage(TypedDict):
    """What the person or program on the other side says."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    role: Literal["user"]
    content: Content
    name: NotRequired[str | None]


class AssistantMessage(TypedDict):
    """What the model said before; without content only if it called tools."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    role: Literal["assistant"]
    content: NotRequired[Content | None]
    refusal: NotRequired[str | None]
    reasoning: NotRequired[str | None]
    reasoning_content: NotRequired[str | None]
    name: NotRequired[str | None]
    audio: NotRequired[dict[str, Any] | None]
    tool_calls: NotRequired[
        Annotated[
            list[Annotated[FunctionToolCall | CustomToolCall, Field(discriminator="type")]],
            Field(fail_fast=True),
        ]
        | None
    ]
    function_call: NotRequired[FunctionCall | None]


class ToolMessage(TypedDict):
    """What a called tool gave back."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    role: Literal["tool"]
    content: Content | None
    tool_call_id: str


class FunctionMessage(TypedDict):
    """What a called function gave back; OpenAI's older form of a tool message."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    role: Literal["function"]
    content: Content | None
    name: str


ChatMessage = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage, Field(discriminator="role")
]


class Function(TypedDict):
    """A function the model may call; `parameters` is a JSON schema."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]
    name: Name
    description: NotRequired[str | None]
    parameters: NotRequired[dict[str, Any] | None]
    strict: NotRequired[bool | None]


class FunctionTool(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    type: Literal["function"]
    function: Function


class CustomTool(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]
    type: Literal["custom"]
    custom: dict[str, Any]


ChatTool = Annotated[FunctionTool | CustomTool, Field(discriminator="type")]
