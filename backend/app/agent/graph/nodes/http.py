"""`http`: one HTTP request to wherever the installation lets it go."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import quote, urlencode, urlsplit

from pydantic import Field, JsonValue

from app.agent.core.base import Closed, Effect, Mistake, NodeConfig, NodeError, Outputs, node
from app.agent.core.http import HttpFailed, HttpReply, HttpRequest, SecretHeader
from app.agent.core.scope import Scope
from app.agent.core.value_types import kind_of
from app.agent.graph.issues import quoted
from app.agent.graph.json_template import JsonTemplate
from app.agent.graph.limits import exceeds, too_much
from app.agent.graph.references import (
    MAX_RENDERED,
    Chain,
    Lookup,
    RenderedTooLarge,
    Template,
    TemplateError,
    as_text,
    parse,
)
from app.core.http_syntax import host_is_complete, name_problem, url_problem, value_problem
from app.core.retry_after import retry_after_s

_READING = ("GET", "HEAD", "OPTIONS")
_MOST_HEADERS = 64
_LONGEST_HEADER = 2048
_QUOTED = 200
"""Characters of an answer or an address that a message quotes."""
_PORTS = {"http": 80, "https": 443}
_PRIVATE = ("set-cookie", "set-cookie2")
_TEXTUAL = ("text/", "application/xml", "application/javascript", "application/x-www-form-urlencoded")

Status = Annotated[int, Field(strict=True, ge=100, le=599)] | Literal["1xx", "2xx", "3xx", "4xx", "5xx"]


class Secret(Closed):
    """A header that carries a secret of the project: `{"secret": "crm-token", "prefix": "Bearer "}`.

    Its value is put in when the request is sent. It is in no event, journal, log or output.
    """

    secret: Annotated[str, Field(min_length=1, max_length=200)]
    prefix: Annotated[str, Field(max_length=100)] = ""


Body = Literal["json", "text", "form"]


class HttpConfig(NodeConfig):
    """Sends one HTTP request and hands on the answer.

    In `url` a reference at the very beginning is taken as it is; others are percent-encoded, so that no
    value can lead the request elsewhere. `query` is added to it; a list gives a parameter several times, null
    leaves it out. `body` has one of the keys `json` (any value), `text` and `form` (an object).

    A status that is not among `expect_status` fails the node: 429 as `rate_limit` and 5xx as `server_error`,
    which can be tried again, others as `http_status`. `max_bytes` bounds the answer, within what the
    installation takes. `response` says how its body is read; `auto` goes by the content type.

    GET, HEAD and OPTIONS count as `read`, the others as `write`, unless the node's `effect` says otherwise. A
    request that writes carries an `Idempotency-Key` that is the same whenever it is repeated.
    """

    type: ClassVar[str] = "http"
    example: ClassVar[dict[str, Any]] = {
        "method": "POST",
        "url": "https://api.example/v1/questions",
        "headers": {"Authorization": {"secret": "crm-token", "prefix": "Bearer "}},
        "body": {"json": {"text": "{{ inputs.question }}"}},
    }

    method: Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    url: Annotated[Template, Field(examples=["https://api.example/v1/items/{{ inputs.id }}"])]
    headers: Annotated[dict[str, Secret | Template], Field(max_length=_MOST_HEADERS)] = Field(
        default_factory=dict
    )
    query: Annotated[dict[str, JsonTemplate], Field(max_length=200)] = Field(default_factory=dict)
    body: Annotated[dict[Body, JsonTemplate], Field(max_length=1)] = Field(default_factory=dict)
    follow_redirects: Annotated[bool, Field(strict=True)] = True
    expect_status: Annotated[tuple[Status, ...], Field(min_length=1, max_length=50)] = ("2xx",)
    max_bytes: Annotated[int, Field(strict=True, ge=1)] | None = None
    response: Literal["auto", "json", "text", "base64"] = "auto"

    @classmethod
    def mistakes(cls, raw: Mapping[str, Any]) -> Iterator[Mistake]:
        headers = _headers_in(raw)
        yield from _url_mistakes(raw.get("url"), any(isinstance(value, dict) for value in headers.values()))
        for name, value in headers.items():
            yield from _header_mistakes(name, value)
        yield from _body_mistakes(raw.get("body"), raw.get("method", "GET"))

    @classmethod
    def secrets(cls, raw: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
        for header, value in _headers_in(raw).items():
            name = value.get("secret") if isinstance(value, dict) else None
            if isinstance(name, str):
                yield ("headers", header, "secret"), name

    def effect(self) -> Effect:
        """By its `method`: GET, HEAD and OPTIONS read, the others write."""
        return Effect.READ if self.method in _READING else Effect.WRITE


def _headers_in(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    headers = raw.get("headers")
    return headers if isinstance(headers, dict) else {}


def _url_mistakes(url: object, carries_secret: bool) -> Iterator[Mistake]:
    """What is already wrong with what is spelt out of an address, whatever is filled in."""
    parts = ("",) if url == "" else _parts(url)
    if not parts:
        return
    first, whole = parts[0], len(parts) == 1
    if isinstance(first, str) and (problem := url_problem(first, whole=whole)):
        yield Mistake(
            ("url",), f"'url' {quoted(url)}: {problem}", "write an address such as 'https://api.example/v1'"
        )
    elif carries_secret and not (isinstance(first, str) and host_is_complete(first, whole=whole)):
        yield Mistake(
            ("url",),
            f"'url' {quoted(url)} leaves the host open, but a secret is only sent to one that is spelt out",
            "begin it as in 'https://api.example/…', or leave the secret out",
        )


def _header_mistakes(name: str, value: object) -> Iterator[Mistake]:
    place = ("headers", name)
    if problem := name_problem(name):
        yield Mistake(place, problem, "leave it out, or write a name such as 'X-Request-Source'")
    texts = [value.get("prefix")] if isinstance(value, dict) else _parts(value)
    problems = [value_problem(name, text) for text in texts if isinstance(text, str)]
    if any(problems):
        yield Mistake(place, max(problems), "write it in one line of printable ASCII characters")


def _body_mistakes(body: object, method: object) -> Iterator[Mistake]:
    if not isinstance(body, dict):
        return
    if body and method in _READING:
        yield Mistake(
            ("body",), f"{method} requests have no body", "use 'query', or another method such as 'POST'"
        )
    for kind, wanted, noun in (("text", str, "a string"), ("form", dict, "an object")):
        if kind in body and not isinstance(body[kind], wanted):
            yield Mistake(("body", kind), f"{kind!r} takes {noun}, not {quoted(body[kind])}", f"give {noun}")


def _parts(text: object) -> tuple[str | Chain, ...]:
    """Those of a template; nothing where it is none."""
    try:
        return parse(text).parts if isinstance(text, str) else ()
    except TemplateError:
        return ()


@node(
    HttpConfig,
    effect=Effect.READ,
    outputs={"status": int, "headers": dict[str, str], "body": JsonValue, "url": str},
)
async def http(config: HttpConfig, scope: Scope) -> Outputs:
    return await exchange(config, scope, scope.request)


async def exchange(
    config: HttpConfig, lookup: Lookup, send: Callable[[HttpRequest], Awaitable[HttpReply]]
) -> Outputs:
    """The outputs of one request, as configured, with values of `lookup`.

    Raises `HttpFailed`; `NodeError` for values of which no request, or no output, can be made.
    """
    request = _request(config, lookup)
    try:
        reply = await send(request)
    except HttpFailed as error:
        raise _failed(request, error) from error
    if not any(_is(reply.status, expected) for expected in config.expect_status):
        raise _unexpected(config, reply)
    return {
        "status": reply.status,
        "headers": _headers(reply.headers),
        "body": _body(config.response, reply),
        "url": reply.url,
    }


def _request(config: HttpConfig, scope: Lookup) -> HttpRequest:
    body, content_type = _content(config, scope)
    headers: dict[str, str | SecretHeader] = {
        name: SecretHeader(value.secret, value.prefix) if isinstance(value, Secret) else value.text(scope)
        for name, value in config.headers.items()
    }
    if content_type and "content-type" not in {name.lower() for name in headers}:
        headers["Content-Type"] = content_type
    return HttpRequest(
        method=config.method,
        url=_url(config, scope),
        headers=headers,
        body=body,
        follow=config.follow_redirects,
        max_bytes=config.max_bytes,
    )


def _url(config: HttpConfig, scope: Lookup) -> str:
    url = "".join(
        part if isinstance(part, str) else _inserted(as_text(scope.value(part)), raw=index == 0)
        for index, part in enumerate(config.url.parts)
    )
    if pairs := _pairs("query", {name: value.value(scope) for name, value in config.query.items()}):
        address, hash_mark, fragment = url.partition("#")
        joint = "&" if "?" in address else "?"
        url = f"{address}{joint}{urlencode(pairs)}{hash_mark}{fragment}"
    return url


def _inserted(text: str, *, raw: bool) -> str:
    return text if raw else quote(text, safe="")


def _content(config: HttpConfig, scope: Lookup) -> tuple[bytes, str]:
    """The body, and what it is."""
    for kind, template in config.body.items():
        value = template.value(scope)
        if exceeds(value, max_text=MAX_RENDERED):
            raise RenderedTooLarge(f"the body comes to more than {too_much(MAX_RENDERED)}")
        match kind:
            case "json":
                text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
                return _encoded(text), "application/json"
            case "text":
                return _encoded(as_text(value)), "text/plain; charset=utf-8"
            case "form":
                return urlencode(_pairs("form", value)).encode(), "application/x-www-form-urlencoded"
    return b"", ""


def _encoded(text: str) -> bytes:
    return text.encode(errors="replace")


def _pairs(field: str, values: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = []
    for name, value in values.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict | list):
                message = f"{field}.{name} takes text, numbers and lists of them, not {kind_of(item)}"
                raise NodeError(message, code="bad_request")
            if item is not None:
                pairs.append((name, as_text(item)))
    return pairs


def _is(status: int, expected: int | str) -> bool:
    return status == expected if isinstance(expected, int) else str(status)[0] == expected[0]


def _failed(request: HttpRequest, error: HttpFailed) -> HttpFailed:
    """The error with what was asked for."""
    message = f"{request.method} to {_place(request.url)}: {error.detail}"
    return HttpFailed(message, code=error.code, retry_after_s=error.retry_after_s)


def _place(url: str) -> str:
    """Host, port and path. The query stays out of messages: it may hold what others must not know."""
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port or _PORTS[parts.scheme]
    except (KeyError, ValueError):
        return "an address that is none"
    place = f"[{host}]:{port}{parts.path}" if host and ":" in host else f"{host}:{port}{parts.path}"
    return repr(place if len(place) <= _QUOTED else place[: _QUOTED - 1] + "…")


def _unexpected(config: HttpConfig, reply: HttpReply) -> HttpFailed:
    code = "rate_limit" if reply.status == 429 else "server_error" if reply.status >= 500 else "http_status"
    said = " ".join(reply.text[: 4 * _QUOTED].split())[:_QUOTED]
    message = f"{config.method} to {_place(reply.url)} was answered {reply.status}"
    message += f": {said}" if said else ""
    return HttpFailed(message, code=code, retry_after_s=retry_after_s(reply.headers))


def _headers(headers: Mapping[str, str]) -> dict[str, str]:
    """What is handed on: no cookies, nothing endless."""
    kept = [
        (name, value)
        for name, value in headers.items()
        if name not in _PRIVATE and len(value) <= _LONGEST_HEADER
    ]
    return dict(kept[:_MOST_HEADERS])


def _body(response: str, reply: HttpReply) -> Any:
    kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    if response == "auto":
        response = _response_of(kind, reply.body)
    match response:
        case "json":
            return _json(reply)
        case "text":
            return reply.text
        case "base64":
            return base64.b64encode(reply.body).decode()
    return None


def _response_of(content_type: str, body: bytes) -> str:
    if not body:
        return "none"
    if content_type == "application/json" or content_type.endswith("+json"):
        return "json"
    if not content_type or content_type.endswith("+xml") or content_type.startswith(_TEXTUAL):
        return "text"
    return "base64"


def _json(reply: HttpReply) -> Any:
    try:
        value = json.loads(reply.text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        reason = str(error)[:_QUOTED] if isinstance(error, ValueError) else "it is nested too deeply"
        raise NodeError(f"the answer is not JSON: {reason}", code="invalid_response") from None
    if exceeds(value, max_text=MAX_RENDERED):
        raise RenderedTooLarge("the answer holds more values, text or levels than a run can carry")
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
