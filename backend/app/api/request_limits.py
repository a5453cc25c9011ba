"""What a request may be before anyone looks at it: the length of its URL and headers, and its pace."""

from __future__ import annotations

import asyncio
from time import monotonic

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import problem_of
from app.core.errors import AppError, HeadersTooLarge, UriTooLong


class RequestLimits:
    """414 and 431 for what is too long; 408 for a body that does not come, or only trickles.

    Nothing of it for `silence_s` is too slow, and so is less than `min_bytes_per_s` beyond the first
    `silence_s`: what is read before the caller is known takes memory.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_url_bytes: int,
        max_header_bytes: int,
        silence_s: float,
        min_bytes_per_s: int,
    ) -> None:
        self.app = app
        self.max_url_bytes, self.max_header_bytes = max_url_bytes, max_header_bytes
        self.silence_s, self.min_bytes_per_s = silence_s, min_bytes_per_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        error = self._too_long(scope)
        if error is not None:
            await problem_of(Request(scope), error)(scope, receive, send)
            return
        await self.app(scope, self._impatient(receive), send)

    def _too_long(self, scope: Scope) -> AppError | None:
        url = len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"])
        if url > self.max_url_bytes:
            return UriTooLong(
                f"The URL has {url} bytes; at most {self.max_url_bytes} are taken (ORRERY_MAX_URL_BYTES)."
            )
        headers = sum(len(name) + len(value) for name, value in scope["headers"])
        if headers > self.max_header_bytes:
            return HeadersTooLarge(
                f"The headers have {headers} bytes; at most {self.max_header_bytes} are taken "
                "(ORRERY_MAX_HEADER_BYTES)."
            )
        return None

    def _impatient(self, receive: Receive) -> Receive:
        """`receive` until the body has come; afterwards it only tells when the client goes away."""
        complete, received, waited_s = False, 0, 0.0

        async def read() -> Message:
            nonlocal complete, received, waited_s
            if complete:
                return await receive()
            began = monotonic()
            try:
                async with asyncio.timeout(self.silence_s):
                    message = await receive()
            except TimeoutError:
                detail = f"No part of the body came for {self.silence_s:g} s (ORRERY_BODY_SILENCE_S)"
                raise HTTPException(408, detail, {"Connection": "close"}) from None
            complete = not message.get("more_body", False)
            received += len(message.get("body", b""))
            waited_s += monotonic() - began
            if not complete and waited_s > self.silence_s + received / self.min_bytes_per_s:
                detail = (
                    f"The body comes with less than {self.min_bytes_per_s} bytes per second "
                    "(ORRERY_BODY_MIN_BYTES_PER_S)"
                )
                raise HTTPException(408, detail, {"Connection": "close"})
            return message

        return read
