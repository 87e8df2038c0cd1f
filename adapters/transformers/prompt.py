"""Messages and tools, or plain text -> prompt tokens, through the model's own chat template."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..base import GenerationRequest, Message, Prompt
from ..errors import ContextLengthExceeded, InvalidRequest, UnsupportedParameter
from .chat_messages import SHAPES, normalised, refuse_role, template_tools, text_arguments
from .load import LoadedModel
from .plain_chat import PlainChat, plain_chat, turns_of
from .response_formats import TEMPLATE_ERRORS

logger = logging.getLogger(__name__)

# What apply_chat_template takes for itself; a request's template variables cannot be called so.
RESERVED = {
    *("conversation", "messages", "tools", "chat_template", "tokenize", "padding", "truncation", "max_length"),
    *("return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs", "sanitize_control_tokens"),
}

CHARACTERS_A_TOKEN = 16
"""Hardly any text has more of them in the mean."""


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as tokens and as the text they stand for; `param` is the request's field it came from.

    `stops` are stop strings that belong to the prompt's form, beside the request's own. `continues`: the answer goes on
    where the prompt's text ends. `is_plain`: the model has no chat template.
    """

    token_ids: tuple[int, ...]
    text: str
    param: Literal["messages", "prompt"]
    stops: tuple[str, ...] = ()
    continues: bool = False
    is_plain: bool = False


class PromptBuilder:
    """Makes a model's prompts; says in the log if it does so without a chat template."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._tokenizer = loaded.tokenizer
        template = self._tokenizer.chat_template
        self._template = template if isinstance(template, str) else "\n".join((template or {}).values())
        self._plain = None if template else _plain_chat_of(loaded)
        if self._plain is not None:
            logger.warning("%s has no chat template; it is given chats as %s", loaded.name, self._plain.name)

    def build(self, request: GenerationRequest) -> list[EncodedPrompt]:
        """The one prompt of a chat request, or each prompt of a text request; raises InvalidRequest."""
        if not request.is_chat:
            return [self._text(prompt, request) for prompt in request.prompts]
        return [self._chat(request) if self._plain is None else self._plain_chat(request, self._plain)]

    # Chats

    def _chat(self, request: GenerationRequest) -> EncodedPrompt:
        messages = normalised(request.messages, self._template, self._loaded.name)
        variables = self._variables(request)
        text = self._rendered(messages, variables)
        self._check_size(text, "messages")
        continues = bool(variables["continue_final_message"])
        return EncodedPrompt(tuple(self._encode(text, special=False)), text, "messages", continues=continues)

    def _variables(self, request: GenerationRequest) -> dict[str, Any]:
        """What the template is given beside the messages."""
        given = request.chat_template_kwargs
        if wrong := sorted(RESERVED & set(given)):
            raise UnsupportedParameter.named(f"chat_template_kwargs.{wrong[0]}", "it is not the request's to set")
        variables = {**self._thinking_variables(request), **self._tool_variables(request), **given}
        variables.setdefault("continue_final_message", False)
        variables.setdefault("add_generation_prompt", not variables["continue_final_message"])
        return variables

    def _thinking_variables(self, request: GenerationRequest) -> dict[str, Any]:
        effort = request.reasoning_effort
        if effort is None:
            return {}
        switches = [name for name in ("enable_thinking", "thinking") if name in self._template]
        if "reasoning_effort" not in self._template and not switches:
            form = self._loaded.response_format
            if effort != "none" and (form is None or form.thinking_marks is None):
                raise UnsupportedParameter.named("reasoning_effort", f"{self._loaded.name} does not think")
            return {}
        return {"reasoning_effort": effort} | dict.fromkeys(switches, effort != "none")

    def _tool_variables(self, request: GenerationRequest) -> dict[str, Any]:
        if not request.tools or request.tool_choice == "none":
            return {"tools": None}
        if "tools" not in self._template:
            raise UnsupportedParameter.named("tools", f"the chat template of {self._loaded.name} has no tools")
        tools = template_tools(request.tools)
        return {"tools": tools} | ({"xml_tools": tools} if "xml_tools" in self._template else {})

    def _rendered(self, messages: list[Message], variables: dict[str, Any]) -> str:
        """The chat as text; where the template refuses OpenAI's roles, in the nearest shape that it takes."""
        first: Exception | None = None
        tried: list[list[Message]] = []
        for shape in SHAPES:
            shaped = shape(messages)
            if shaped in tried:
                continue
            tried.append(shaped)
            try:
                text = self._render(shaped, variables)
            except TEMPLATE_ERRORS as error:
                first = first or error
            else:
                if not self._drops_system(shaped, text):
                    return text
        raise InvalidRequest(
            f"the chat template of {self._loaded.name} does not take these messages: {first}", param="messages"
        ) from first

    def _drops_system(self, messages: list[Message], text: str) -> bool:
        """Whether the template has no system messages, and leaves them out without a word."""
        system = [message["content"].strip() for message in messages if message["role"] == "system"]
        return "system" not in self._template and any(content not in text for content in system)

    def _render(self, messages: list[Message], variables: dict[str, Any]) -> str:
        try:
            return self._apply(messages, variables)
        except TypeError:
            as_text = text_arguments(messages)
            if as_text == messages:
                raise
            return self._apply(as_text, variables)

    def _apply(self, messages: list[Message], variables: dict[str, Any]) -> str:
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False, **variables))

    def _plain_chat(self, request: GenerationRequest, plain: PlainChat) -> EncodedPrompt:
        if request.tools and request.tool_choice != "none":
            raise UnsupportedParameter.named("tools", f"{self._loaded.name} has no chat template")
        if request.reasoning_effort not in (None, "none"):
            raise UnsupportedParameter.named("reasoning_effort", f"{self._loaded.name} has no chat template")
        for index, message in enumerate(request.messages):
            if message["role"] not in ("system", "developer", "user", "assistant"):
                raise refuse_role(message, index)
        turns = turns_of(normalised(request.messages, "", self._loaded.name))
        end = str(self._tokenizer.eos_token or "")
        text = plain.write(turns, end)
        if plain.takes_all:
            self._check_size(text, "messages")
        token_ids = self._encode(text, special=True)
        while not plain.takes_all and len(turns) > 1 and len(token_ids) > self._loaded.context_length:
            turns = turns[1:]
            text = plain.write(turns, end)
            token_ids = self._encode(text, special=True)
        return EncodedPrompt(tuple(token_ids), text, "messages", plain.stops, is_plain=True)

    # Texts

    def _text(self, prompt: Prompt, request: GenerationRequest) -> EncodedPrompt:
        if isinstance(prompt, str):
            self._check_size(prompt, "prompt")
            special = request.extra.get("add_special_tokens") is not False
            return EncodedPrompt(tuple(self._encode(prompt, special=special)), prompt, "prompt", continues=True)
        for token in prompt:
            if not 0 <= token < self._loaded.vocab_size:
                raise InvalidRequest(
                    f"token {token} is not in the vocabulary, which goes from 0 to {self._loaded.vocab_size - 1}",
                    param="prompt",
                )
        return EncodedPrompt(prompt, str(self._tokenizer.decode(list(prompt))), "prompt", continues=True)

    def _check_size(self, text: str, param: str) -> None:
        """Refuse what is many times too long after a look at its beginning: others wait while a text is encoded."""
        context = self._loaded.context_length
        beginning = text[: context * CHARACTERS_A_TOKEN]
        if len(beginning) == len(text):
            return
        length = len(self._encode(beginning, special=False))
        if length > context:
            raise ContextLengthExceeded.of(context, length, None, param, at_least=True)

    def _encode(self, text: str, *, special: bool) -> list[int]:
        """The tokens of a text; `special`: with the tokens that the model expects around one."""
        tokens: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        if special:
            tokens = self._with_special(text, tokens)
        return tokens

    def _with_special(self, text: str, bare: Sequence[int]) -> list[int]:
        tokens: list[int] = list(self._tokenizer(text, add_special_tokens=True)["input_ids"])
        bos, eos = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        if bos is not None and tokens[:2] == [bos, bos] and list(bare[:1]) == [bos]:
            tokens = tokens[1:]
        if self._loaded.is_encoder_decoder:
            ends = self._loaded.model.config.model_type == "blenderbot" and tokens[-1:] != [eos]
            return [*tokens, eos] if ends and eos is not None else tokens
        if tokens[-1:] == [eos] and list(bare[-1:]) != [eos]:
            tokens = tokens[:-1]  # a text that is to go on must not end
        start = bos if bos is not None else eos
        return tokens or ([start] if start is not None else [])


def _plain_chat_of(loaded: LoadedModel) -> PlainChat:
    config = loaded.model.config
    tasks = getattr(config, "task_specific_params", None) or {}
    return plain_chat(config.model_type, is_dialogue="conversational" in tasks)
