"""A conversation with a model behind OpenAI's API: the messages so far, and the next answer as it comes."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, NamedTuple

import openai

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam


class Piece(NamedTuple):
    """A piece of an answer, or of the thinking before it."""

    text: str
    is_reasoning: bool = False


class Conversation:
    """The messages of a chat, and whom to ask for answers; `temperature` and `max_tokens` None are the model's own."""

    def __init__(
        self,
        client: openai.OpenAI,
        model: str,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self._client = client
        self.model = model
        self.system = system
        self._temperature = openai.omit if temperature is None else temperature
        self._max_tokens = openai.omit if max_tokens is None else max_tokens
        self._turns: list[ChatCompletionMessageParam] = []

    def clear(self) -> None:
        """Forget all turns; the system prompt stays."""
        self._turns.clear()

    def take_back(self) -> bool:
        """Forget the last answer, so that it can be asked for again; whether there is a message to answer."""
        if self._turns and self._turns[-1]["role"] == "assistant":
            self._turns.pop()
        return bool(self._turns)

    def say(self, text: str) -> None:
        """Add the user's next message; one that was never answered is replaced."""
        if self._turns and self._turns[-1]["role"] == "user":
            self._turns.pop()
        self._turns.append({"role": "user", "content": text})

    def answer(self) -> Generator[Piece]:
        """The answer to the last message, piece by piece.

        Closing the iterator, or an exception where it is used, ends the request at the server too. What came of the
        answer until then is kept as the model's turn. Raises openai.OpenAIError.
        """
        said: list[str] = []
        try:
            with self._client.chat.completions.create(
                model=self.model,
                messages=self._messages,
                stream=True,
                temperature=self._temperature,
                max_tokens=self._max_tokens,
            ) as stream:
                for chunk in stream:
                    for choice in chunk.choices:
                        if thought := _reasoning(choice.delta):
                            yield Piece(thought, is_reasoning=True)
                        if choice.delta.content:
                            said.append(choice.delta.content)
                            yield Piece(choice.delta.content)
        finally:
            if said:
                self._turns.append({"role": "assistant", "content": "".join(said)})

    @property
    def _messages(self) -> list[ChatCompletionMessageParam]:
        system: list[ChatCompletionMessageParam] = [{"role": "system", "content": self.system}] if self.system else []
        return system + self._turns


def explain(error: openai.OpenAIError) -> str:
    """An error of the SDK in the server's own words, or in ours if the server said nothing."""
    match error:
        case openai.APITimeoutError():
            return "the server did not answer in time"
        case openai.APIConnectionError():
            return "the connection to the server broke, or there is no server any more"
        case openai.APIError(body={"message": str(message)}):
            return message
    return str(error)


def _reasoning(delta: object) -> str:
    """A piece of thinking, under either of the names that servers use for it."""
    for name in ("reasoning_content", "reasoning"):
        if isinstance(text := getattr(delta, name, None), str):
            return text
    return ""
