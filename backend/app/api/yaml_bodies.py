"""YAML (RFC 9512) beside JSON: bodies of routes that take documents, and answers to be kept in files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Final

from fastapi import Request, Response
from fastapi.routing import APIRoute

from app.agent.graph.issues import Findings, InvalidGraph
from app.agent.graph.limits import check_size
from app.agent.graph.loading import load_document
from app.agent.graph.writing import to_yaml
from app.api.unread import ask_guard
from app.core.config import Settings
from app.core.errors import AppError, BadRequest, FieldError, TooLarge

YAML: Final = "application/yaml"
_JSON: Final = "application/json"
_READER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="yaml")
"""Reading YAML takes long: one text at a time leaves the processor to the others."""


class YamlRoute(APIRoute):
    """Takes its body as YAML, too. It is read once the route's guard has let the caller in."""

    notations: ClassVar[tuple[str, ...]] = (YAML,)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_either(request: Request) -> Response:
            if _kind(request) != YAML:
                return await handle(request)
            await ask_guard(request)
            return await handle(_YamlRequest(request))

        return handle_either


class _YamlRequest(Request):
    """For all that comes after, a request with a JSON body."""

    def __init__(self, request: Request) -> None:
        name, rest = b"content-type", request.headers["content-type"].partition(";")[2]
        kind = (name, f"{_JSON};{rest}".rstrip(";").encode("latin-1"))
        request.scope["headers"] = [kind, *(h for h in request.scope["headers"] if h[0] != name)]
        super().__init__(request.scope, request.receive)

    async def json(self) -> Any:
        settings: Settings = self.app.state.settings
        body, limit = await self.body(), settings.max_yaml_bytes
        if len(body) > limit:
            raise TooLarge(f"The YAML is larger than {limit} bytes (ORRERY_MAX_YAML_BYTES): send JSON.")
        return await asyncio.get_running_loop().run_in_executor(_READER, _document, body)


def answer(document: dict[str, Any], **options: Any) -> Response:
    return Response(to_yaml(document), media_type=YAML, **options)


def wants_yaml(request: Request) -> bool:
    """Whether `Accept` (RFC 9110, 12.5.1) likes YAML better than JSON, which is what is sent otherwise."""
    header = request.headers.get("accept", "")
    return YAML in header and _liking(header, YAML) > _liking(header, _JSON)


def described(document: dict[str, Any], route: YamlRoute) -> None:
    """Adds to OpenAPI's `document` that the route takes YAML."""
    for method in route.methods or ():
        body = document["paths"][route.path][method.lower()].get("requestBody")
        if body is not None:
            body["content"][YAML] = body["content"][_JSON]


def _document(body: bytes) -> Any:
    try:
        document = load_document(body.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise _unreadable(f"it is not UTF-8 at byte {error.start}") from error
    except InvalidGraph as error:
        raise _unreadable(error.report.issues[0].message) from error
    findings = Findings()
    if not check_size(document, findings):
        raise _unreadable(findings.report(document).issues[0].message)
    return document


def _unreadable(why: str) -> AppError:
    message = f"The body is not YAML that can be taken: {why}."
    return BadRequest(message, code="malformed_yaml", errors=[FieldError("/body", "malformed_yaml", message)])


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _liking(header: str, kind: str) -> tuple[float, int]:
    """How much a media type is wanted, and how plainly that is said."""
    ranges = {"*/*": 1, "application/*": 2, kind: 3}
    found = (0.0, 0)
    for item in header.split(","):
        name, _, parameters = item.partition(";")
        plainness = ranges.get(name.strip().lower(), 0)
        if plainness > found[1]:
            found = (_quality(parameters), plainness)
    return found


def _quality(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
