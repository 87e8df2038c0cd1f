"""One HTTP request of an action: sent, tried again, read whole or as a stream."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx2
import msgspec

from ...adapters.errors import ConfigError, UpstreamError
from ...adapters.events import Usage
from ...adapters.upstream import finish_reason_of, said, usage_of
from ..references import as_text, render_deep
from ..schema import HttpAction, Retry
from .call import Call, End
from .items import BrokenStream, ItemDecoder, is_json, parsed
from .streams import Form, ItemStream

LONGEST_ERROR = 2000
"""Characters of an upstream's error text that are handed on."""

LARGEST_ANSWER = 256 * 1024 * 1024
"""Bytes of an answer that is read whole."""

LONGEST_DELAY = 60.0
"""Seconds between two tries, whatever the upstream asks for."""

LONGEST_CONNECT = 30.0
"""Seconds until a connection has to be made."""

NOTHING = Usage(0, 0)

_TRY_AGAIN = (429, 503)
_CONNECTION_ERRORS = (httpx2.NetworkError, httpx2.ConnectTimeout, httpx2.RemoteProtocolError)


class Target(msgspec.Struct, frozen=True):
    """Where a component's actions go: `name` is the component's, for messages; `timeout` is seconds without a byte."""

    name: str
    base_url: Any
    headers: Mapping[str, Any]
    timeout: float
    retry: Retry


@asynccontextmanager
async def opened_client(*, is_local: bool) -> AsyncIterator[httpx2.AsyncClient]:
    """A client without a limit of its own on connections; proxies of the environment are not for local servers."""
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=100)
    async with httpx2.AsyncClient(limits=limits, trust_env=not is_local, follow_redirects=False) as client:
        yield client


@asynccontextmanager
async def exchange(client: httpx2.AsyncClient, target: Target, action: HttpAction, call: Call) -> AsyncIterator[Any]:
    """The answer to an action's request: JSON, text, or a stream; raises UpstreamError."""
    request = _request(client, target, action, call.scope)
    response = await _send(client, target, request)
    try:
        if action.stream_format is None:
            yield await _whole(target, response, call)
        else:
            yield ItemStream(_items(target, response, action.stream_format, call), action.stream_format)
    finally:
        await response.aclose()


def _request(
    client: httpx2.AsyncClient, target: Target, action: HttpAction, scope: Mapping[str, Any]
) -> httpx2.Request:
    headers = _texts(render_deep({**target.headers, **action.headers}, scope))
    kind = next((value for name, value in headers.items() if name.lower() == "content-type"), "")
    try:
        return client.build_request(
            action.method,
            _url(target, action, scope),
            headers=headers,
            params=_texts(render_deep(action.params, scope)) or None,
            timeout=_timeout(action.timeout or target.timeout),
            **_body(render_deep(action.body, scope), kind),
        )
    except (httpx2.InvalidURL, UnicodeError, ValueError, TypeError) as error:
        raise ConfigError(f"component '{target.name}' cannot send this request: {error}") from error


def _timeout(seconds: float) -> httpx2.Timeout:
    """For each wait for bytes; who does not even take a connection is given up earlier."""
    return httpx2.Timeout(seconds, connect=min(seconds, LONGEST_CONNECT))


def _url(target: Target, action: HttpAction, scope: Mapping[str, Any]) -> str:
    endpoint = render_deep(action.endpoint, scope)
    base, path = render_deep(target.base_url, scope), as_text(render_deep(action.path, scope))
    url = as_text(endpoint) if endpoint else "/".join((as_text(base).rstrip("/"), path.lstrip("/"))).rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"component '{target.name}' has no URL to send this to: {url!r} is not http://...")
    return url


def _body(body: Any, kind: str) -> dict[str, Any]:
    """What httpx2 is to send: nothing, a text as it is, a form, or else JSON."""
    if body is None:
        return {}
    if isinstance(body, str):
        return {"content": body.encode()}
    if kind.startswith("application/x-www-form-urlencoded") and isinstance(body, dict):
        return {"data": _texts(body)}
    return {"json": body}


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: as_text(value) for name, value in values.items() if value is not None}


async def _send(client: httpx2.AsyncClient, target: Target, request: httpx2.Request) -> httpx2.Response:
    """The response to a request, its head read and its status 2xx."""
    for attempt in range(target.retry.attempts):
        is_last = attempt + 1 == target.retry.attempts
        delay = target.retry.delay * 2**attempt
        try:
            response = await client.send(request, stream=True)
        except _CONNECTION_ERRORS as error:
            if is_last:
                raise _failed(target, error) from error
        except httpx2.HTTPError as error:
            raise _failed(target, error) from error
        else:
            if response.is_success:
                return response
            delay = max(delay, _asked_delay(response))
            refused = await _refused(target, request, response)
            if is_last or response.status_code not in _TRY_AGAIN:
                raise refused
        await asyncio.sleep(min(delay, LONGEST_DELAY))
    raise AssertionError


def _asked_delay(response: httpx2.Response) -> float:
    try:
        return max(0.0, float(response.headers.get("retry-after", "0")))
    except ValueError:
        return 0.0


async def _refused(target: Target, request: httpx2.Request, response: httpx2.Response) -> UpstreamError:
    """The error that a response with a status other than 2xx is."""
    text = b""
    try:
        async for data in response.aiter_bytes():
            text += data
            if len(text) > LONGEST_ERROR * 4:
                break
    except httpx2.HTTPError:
        text += b" ..."
    finally:
        await response.aclose()
    status = response.status_code
    reason = said(text.decode(errors="replace")).strip() or response.reason_phrase
    message = f"component '{target.name}' answered {status} to {request.method} {request.url.path}: {reason}"
    return UpstreamError(message[:LONGEST_ERROR], status=status if status >= 400 else 502)


def _failed(target: Target, error: httpx2.HTTPError) -> UpstreamError:
    if isinstance(error, httpx2.TimeoutException):
        return UpstreamError(f"component '{target.name}' did not answer in time", status=504)
    reason = str(error) or type(error).__name__
    return UpstreamError(f"component '{target.name}' could not be reached: {reason}", status=502)


async def _bytes(target: Target, response: httpx2.Response) -> AsyncGenerator[bytes]:
    """The body as it comes."""
    try:
        async for data in response.aiter_bytes():
            yield data
    except httpx2.TimeoutException as error:
        raise _failed(target, error) from error
    except httpx2.HTTPError as error:
        raise _broken(target, str(error) or type(error).__name__) from error


async def _whole(target: Target, response: httpx2.Response, call: Call) -> Any:
    """The body as JSON if it says it is, else as text, or as a data URL if it is neither."""
    body = bytearray()
    async with aclosing(_bytes(target, response)) as pieces:
        async for data in pieces:
            body += data
            if len(body) > LARGEST_ANSWER:
                raise _broken(target, f"there are more than {LARGEST_ANSWER} bytes")
    kind = _kind(response)
    try:
        text = body.decode(response.charset_encoding or "utf-8")
        answer = parsed(text) if is_json(kind) and text else text
    except BrokenStream as error:
        raise _broken(target, str(error)) from error
    except (UnicodeDecodeError, LookupError):
        return f"data:{kind or 'application/octet-stream'};base64,{base64.b64encode(body).decode()}"
    call.meter.add(usage_of(answer) or NOTHING)
    _note_end(answer, call.end)
    return answer


async def _items(target: Target, response: httpx2.Response, form: Form, call: Call) -> AsyncGenerator[Any]:
    """What an answer's stream consists of, in this form."""
    decoder = ItemDecoder(form, _kind(response))
    # Servers that tell of the tokens more than once tell of all tokens so far.
    usage = NOTHING
    try:
        async with aclosing(_bytes(target, response)) as pieces:
            async for data in pieces:
                for item in decoder.feed(data):
                    usage = usage_of(item) or usage
                    _note_end(item, call.end)
                    yield item
                if decoder.is_done:
                    return
        for item in decoder.finish():
            usage = usage_of(item) or usage
            _note_end(item, call.end)
            yield item
    except BrokenStream as error:
        raise _broken(target, str(error)) from error
    finally:
        call.meter.add(usage)


def _note_end(answer: Any, end: End) -> None:
    end.reason = finish_reason_of(answer) or end.reason


def _broken(target: Target, reason: str) -> UpstreamError:
    return UpstreamError(f"component '{target.name}' broke off its answer: {reason}"[:LONGEST_ERROR], status=502)


def _kind(response: httpx2.Response) -> str:
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()
