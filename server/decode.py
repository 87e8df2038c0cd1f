"""From the body of a request to a `GenerationRequest`. Pure.

What the contract knows and this server cannot do is refused here by name; what a particular model cannot do, its
adapter refuses.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, cast

import msgspec

from ..adapters.base import (
    ChoiceConstraint,
    Constraint,
    GenerationRequest,
    GrammarConstraint,
    JsonConstraint,
    Message,
    NamedTool,
    Prompt,
    RegexConstraint,
    Sampling,
    Tool,
    ToolChoice,
)
from ..adapters.errors import InvalidRequest, UnsupportedParameter
from .schema import (
    AllowedChoice,
    Body,
    ChatBody,
    CompletionBody,
    CustomChoice,
    FunctionChoice,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedFunction,
)
from .validation import echo

_log = logging.getLogger(__name__)
_OLD_DEFAULT_MAX_TOKENS = 16
"""What OpenAI's text completions generate when nothing is said."""


def chat(body: ChatBody, *, strict: bool = False) -> GenerationRequest:
    """What a chat body asks for; unknown fields are refused if `strict`."""
    _refuse_unsupported_chat(body)
    _check_stream_options(body)
    _check_messages(cast(Sequence[Message], body.messages))
    tools, choice = _tools(body)
    return GenerationRequest(
        model=body.model,
        messages=tuple(cast(Sequence[Message], body.messages)),
        tools=tools,
        tool_choice=choice,
        # The older form has room for one call only.
        parallel_tool_calls=body.parallel_tool_calls is not False and not body.functions,
        constraint=_constraint(body),
        reasoning_effort=body.reasoning_effort,
        chat_template_kwargs=_template_kwargs(body),
        sampling=_sampling(body, body.max_completion_tokens or body.max_tokens),
        n=body.n or 1,
        logprobs=_chat_logprobs(body),
        # Changes no model's answer; a workflow may read it.
        extra=_extra(body, strict) | ({"metadata": body.metadata} if body.metadata else {}),
    )


def completion(body: CompletionBody, *, strict: bool = False) -> GenerationRequest:
    """What a text-completion body asks for; unknown fields are refused if `strict`."""
    _refuse_unsupported_completion(body)
    _check_stream_options(body)
    return GenerationRequest(
        model=body.model,
        prompts=_prompts(body.prompt),
        constraint=_constraint(body),
        sampling=_sampling(body, _old_max_tokens(body)),
        n=body.n or 1,
        logprobs=body.logprobs,
        echo=bool(body.echo),
        extra=_extra(body, strict),
    )


def _refuse_unsupported_chat(body: ChatBody) -> None:
    if body.audio is not None:
        raise UnsupportedParameter.named("audio", "answers here are text.")
    if "audio" in (body.modalities or ()):
        raise UnsupportedParameter.named("modalities", "answers here are text; only ['text'] is possible.")
    if body.web_search_options is not None:
        raise UnsupportedParameter.named("web_search_options", "this server does not search the web.")
    if body.moderation is not None:
        raise UnsupportedParameter.named("moderation", "this server has no moderation model.")
    if body.verbosity not in (None, "medium"):
        raise UnsupportedParameter.named("verbosity", "say in a system message how long answers should be.")
    if body.chat_template is not None:
        raise UnsupportedParameter.named("chat_template", "the model's own is used; chat_template_kwargs can steer it.")


def _refuse_unsupported_completion(body: CompletionBody) -> None:
    if body.suffix:
        raise UnsupportedParameter.named("suffix", "text is only continued at its end; leave it out.")
    if body.best_of is None or body.best_of == (body.n or 1):
        return
    if body.best_of < (body.n or 1):
        raise InvalidRequest(
            f"Invalid 'best_of': expected at least n ({body.n or 1}), but got {body.best_of} instead.",
            param="best_of",
            code="integer_below_min_value",
        )
    raise UnsupportedParameter.named("best_of", "every answer is returned; ask for n of them and choose.")


def _check_stream_options(body: Body) -> None:
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest("'stream_options' is only allowed when 'stream' is true.", param="stream_options")


def _check_messages(messages: Sequence[Message]) -> None:
    for index, message in enumerate(messages):
        if any(call["type"] == "custom" for call in message.get("tool_calls") or ()):
            raise UnsupportedParameter.named(f"messages[{index}].tool_calls", "custom tools are not; use functions.")
        if message["role"] == "assistant" and not message.keys() & {"content", "tool_calls", "function_call"}:
            param = f"messages[{index}].content"
            raise InvalidRequest(
                f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
            )


def _tools(body: ChatBody) -> tuple[tuple[Tool, ...], ToolChoice]:
    """The tools that may be called and how; OpenAI's older functions are put into the newer form."""
    if body.tools and body.functions:
        raise InvalidRequest("Give 'tools' or 'functions', not both.", param="functions", code="invalid_value")
    if any(tool["type"] == "custom" for tool in body.tools or ()):
        raise UnsupportedParameter.named("tools", "custom tools cannot be offered; describe them as functions.")
    param = "function_call" if body.functions else "tool_choice"
    tools = cast(
        tuple[Tool, ...],
        tuple(body.tools or ()) or tuple({"type": "function", "function": each} for each in body.functions or ()),
    )
    asked = body.tool_choice if not body.functions or body.tool_choice is not None else body.function_call
    match asked:
        case None | "none" | "auto":
            return tools, asked or "auto"
        case CustomChoice():
            raise UnsupportedParameter.named("tool_choice", "custom tools cannot be offered.")
    if not tools:
        raise InvalidRequest(
            f"'{param}' is only allowed when 'tools' are specified.", param=param, code="invalid_value"
        )
    match asked:
        case FunctionChoice(function=NamedFunction(name=name)) | NamedFunction(name=name):
            _only(tools, [name], param)
            return tools, NamedTool(name)
        case AllowedChoice(allowed_tools=allowed):
            return _only(tools, [each.function.name for each in allowed.tools], param), allowed.mode
        case _:
            return tools, "required"


def _only(tools: tuple[Tool, ...], names: Sequence[str], param: str) -> tuple[Tool, ...]:
    """Those of `tools` that are named; all names must be there."""
    known = {tool["function"]["name"] for tool in tools}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InvalidRequest(
            f"Invalid '{param}': no tool is called {echo(unknown[0])}; 'tools' has {echo(', '.join(sorted(known)))}.",
            param=param,
            code="invalid_value",
        )
    return tuple(tool for tool in tools if tool["function"]["name"] in names)


def _constraint(body: Body) -> Constraint | None:
    """The form the answer must have, however it was spelled; at most one."""
    forms = dict(_forms(body))
    if len(forms) > 1:
        first, second, *_ = forms
        raise InvalidRequest(
            f"Give one form for the answer: '{first}' or '{second}'.", param=second, code="invalid_value"
        )
    return next(iter(forms.values()), None)


def _forms(body: Body) -> Iterable[tuple[str, Constraint]]:
    match body.response_format:
        case JsonObjectFormat(schema_=schema):
            yield "response_format", JsonConstraint(schema)
        case JsonSchemaFormat(json_schema=named):
            yield "response_format", JsonConstraint(named.schema_)
    yield from _spelled("guided_{}", body.guided_json, body.guided_regex, body.guided_choice, body.guided_grammar)
    if (outputs := body.structured_outputs) is not None:
        if outputs.structural_tag is not None:
            raise UnsupportedParameter.named("structured_outputs.structural_tag", "use json, regex, choice or grammar.")
        yield from _spelled("structured_outputs.{}", outputs.json_, outputs.regex, outputs.choice, outputs.grammar)
        if outputs.json_object:
            yield "structured_outputs.json_object", JsonConstraint()


def _spelled(
    name: str, json: dict[str, Any] | str | None, regex: str | None, choice: list[str] | None, grammar: str | None
) -> Iterable[tuple[str, Constraint]]:
    """vLLM's four forms, under the names `name` makes of them."""
    if json is not None:
        yield (param := name.format("json")), JsonConstraint(_schema(json, param))
    if regex is not None:
        yield name.format("regex"), RegexConstraint(regex)
    if choice is not None:
        if not choice:
            raise InvalidRequest(
                f"Invalid '{name.format('choice')}': the array must not be empty.",
                param=name.format("choice"),
                code="empty_array",
            )
        yield name.format("choice"), ChoiceConstraint(tuple(choice))
    if grammar is not None:
        yield name.format("grammar"), GrammarConstraint(grammar)


def _schema(given: dict[str, Any] | str, param: str) -> dict[str, Any]:
    """A JSON schema given as an object or as JSON text."""
    if isinstance(given, dict):
        return given
    try:
        return msgspec.json.decode(given, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(
            f"Invalid '{param}': not the JSON text of an object ({error}).", param=param, code="invalid_value"
        ) from error


def _template_kwargs(body: ChatBody) -> dict[str, Any]:
    """What goes to the chat template by name; the fields win over the same names in `chat_template_kwargs`."""
    fields = {
        "add_generation_prompt": body.add_generation_prompt,
        "continue_final_message": body.continue_final_message,
        "documents": body.documents,
    }
    return {**(body.chat_template_kwargs or {}), **{name: value for name, value in fields.items() if value is not None}}


def _sampling(body: Body, max_tokens: int | None) -> Sampling:
    return Sampling(
        max_tokens=max_tokens,
        max_length=body.max_length,
        min_tokens=body.min_tokens or 0,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=None if body.top_k is None else max(body.top_k, 0),
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        logit_bias=_logit_bias(body.logit_bias or {}),
        seed=body.seed,
        stop=tuple(stop for stop in ([body.stop] if isinstance(body.stop, str) else body.stop or ()) if stop),
        stop_token_ids=tuple(body.stop_token_ids or ()),
        ignore_eos=bool(body.ignore_eos),
    )


def _logit_bias(given: dict[str, float]) -> dict[int, float]:
    for key in given:
        if not (key.isascii() and key.isdigit() and len(key) < 10):
            raise InvalidRequest(
                f"Invalid key in 'logit_bias': expected a token id, but got {echo(key)} instead.",
                param="logit_bias",
                code="invalid_value",
            )
    return {int(key): bias for key, bias in given.items()}


def _chat_logprobs(body: ChatBody) -> int | None:
    if body.logprobs:
        return body.top_logprobs or 0
    if body.top_logprobs:
        raise InvalidRequest(
            "'top_logprobs' is only allowed when 'logprobs' is true.", param="top_logprobs", code="invalid_value"
        )
    return None


def _old_max_tokens(body: CompletionBody) -> int | None:
    """The limit of a text completion; whoever limits the whole length needs no second limit."""
    return _OLD_DEFAULT_MAX_TOKENS if body.max_tokens is None and body.max_length is None else body.max_tokens


def _prompts(given: str | list[str] | list[int] | list[list[int]] | None) -> tuple[Prompt, ...]:
    if given is None or isinstance(given, str):
        return (given or "",)
    if isinstance(given[0], int):
        return (tuple(given),)
    return tuple(each if isinstance(each, str) else tuple(each) for each in cast(list[str | list[int]], given))


def _extra(body: Body, strict: bool) -> dict[str, Any]:
    unknown = body.model_extra or {}
    # `input` is what a workflow reads beside the messages.
    if strict and (strange := [name for name in unknown if name != "input"]):
        name = strange[0][:64]
        raise InvalidRequest(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    if unknown:
        _log.debug("fields the server does not know: %s", ", ".join(sorted(name[:64] for name in unknown)))
    return unknown
