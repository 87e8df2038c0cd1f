"""Messages and tools, or plain text -> prompt tokens, through the model's own chat template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..base import GenerationRequest, Prompt
from .load import LoadedModel


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
    """Makes a model's prompts."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._tokenizer = loaded.tokenizer
        self._vocab_size = loaded.vocab_size

    def build(self, request: GenerationRequest) -> list[EncodedPrompt]:
        """The one prompt of a chat request, or each prompt of a text request; raises InvalidRequest."""
        if request.is_chat:
            return [self._chat(request)]
        return [self._text(prompt) for prompt in request.prompts]

    def _chat(self, request: GenerationRequest) -> EncodedPrompt:
        if self._tokenizer.chat_template is None:
            text = "".join(f"{m['role'].capitalize()}: {m['content']}\n" for m in request.messages) + "Assistant:"
            return EncodedPrompt(tuple(self._encode(text, special=True)), text, "messages", ("\nUser:",), is_plain=True)
        text = self._tokenizer.apply_chat_template(  # type: ignore[assignment]
            list(request.messages),
            tools=list(request.tools) or None,
            tokenize=False,
            **{"add_generation_prompt": True, **request.chat_template_kwargs},
        )
        return EncodedPrompt(tuple(self._encode(text, special=False)), text, "messages")

    def _text(self, prompt: Prompt) -> EncodedPrompt:
        if isinstance(prompt, str):
            return EncodedPrompt(tuple(self._encode(prompt, special=True)), prompt, "prompt", continues=True)
        return EncodedPrompt(prompt, self._tokenizer.decode(list(prompt)), "prompt", continues=True)

    def _encode(self, text: str, *, special: bool) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=special)["input_ids"])
