"""Around every request, in plain ASGI: request id, access log, security headers, one form of errors."""

from __future__ import annotations

import asyncio
import re
from time import perf_counter
from typing import Final

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.bodies import too_large
from app.api.problems import PROBLEM, problem_of
from app.core.ids import new_id

logger = structlog.get_logger("app.access")

EXTRA_HEADERS: Final = "orrery.headers"
"""In the scope: raw headers that are added to the answer, whoever makes it."""

_REQUEST_ID = re.compile(rb"^[A-Za-z0-9._-]{8,64}$")
_SECURITY: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}


class TooLargeAsProblem:
    """Gives the framework's plain 413 the body that all our errors have."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        plain = False

        async def send_problem(message: Message) -> None:
            nonlocal plain
            if message["type"] == "http.response.start":
                kind = MutableHeaders(scope=message).get("content-type", "")
                plain = message["status"] == 413 and kind.startswith("text/plain")
                if plain:
                    return
            if not plain:
                await send(message)
            elif not message.get("more_body"):
                request = Request(scope)
                await problem_of(request, too_large(request))(scope, receive, send)

        await self.app(scope, receive, send_problem)


class HeadAsGet:
    """Answers HEAD as GET without its body; a stream is cut after its headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        started, asked = asyncio.Event(), list[bool]()

        async def gone() -> Message:
            """No body; then, when the client has its headers, that it is gone: the app stops streaming."""
            if not asked:
                asked.append(True)
                return {"type": "http.request", "body": b"", "more_body": False}
            await started.wait()
            return {"type": "http.disconnect"}

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                started.set()

        await self.app({**scope, "method": "GET"}, gone, send_head)


class RequestContext:
    """Gives each request an id (the caller's, if it is a sane one), in `X-Request-Id` and every log line."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = given.decode() if _REQUEST_ID.match(given) else new_id().hex
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        extra: list[tuple[bytes, bytes]] = []
        scope[EXTRA_HEADERS] = extra
        started, status = perf_counter(), 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in _SECURITY.items():
                    headers.setdefault(name, value)
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            code = {"code": scope[PROBLEM]} if PROBLEM in scope else {}
            logger.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                **code,
                duration_ms=round((perf_counter() - started) * 1000, 1),
            )
