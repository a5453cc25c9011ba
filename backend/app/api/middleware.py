"""Around every request, in plain ASGI: request id, access log, security headers, one form of errors."""

from __future__ import annotations

import re
from time import perf_counter
from typing import Final

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import problem_of
from app.core.errors import TooLarge
from app.core.ids import new_id

logger = structlog.get_logger("app.access")

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
                error = TooLarge("The request is larger than this route takes.")
                await problem_of(Request(scope), error)(scope, receive, send)

        await self.app(scope, receive, send_problem)


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
        started, status = perf_counter(), 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in _SECURITY.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            logger.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                duration_ms=round((perf_counter() - started) * 1000, 1),
            )
