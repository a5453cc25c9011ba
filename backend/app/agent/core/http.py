"""HTTP as the engine consumes it: requests, answers, and the way out, as Protocols. No I/O here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from app.core.errors import AppError


@dataclass(frozen=True, slots=True)
class SecretHeader:
    """A header whose value is a secret of the project behind `prefix`; only the port ever knows it."""

    secret: str
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request to an absolute http(s) URL; `follow` its redirects.

    `max_bytes` bounds the answer, within what the installation takes.
    """

    method: str
    url: str
    headers: Mapping[str, str | SecretHeader] = field(default_factory=dict)
    body: bytes = b""
    follow: bool = True
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A complete answer, whatever its status. `url` is the last one; header names are in lower case.

    `text` is the body by its charset. Secrets of the request do not occur in it any more.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    text: str


class HttpFailed(AppError):
    """There is no answer, or none that will do.

    `code`: `timeout`, `server_error` (unreachable, or broken off), `rate_limit` can be tried again;
    `bad_request`, `egress_denied`, `too_large`, `http_status` and others cannot.
    """

    code, title = "server_error", "HTTP request failed"


class HttpStream(Protocol):
    """An answer whose head has arrived; its body is read once, whole or as events.

    Secrets of the request do not occur in it any more. Reading raises `HttpFailed`.
    """

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """With names in lower case."""
        ...

    async def text(self) -> str:
        """The whole body."""
        ...

    def events(self) -> AsyncIterator[str]:
        """The payload of each server-sent event, as it comes."""
        ...


class HttpStreams(Protocol):
    """The same way out as `Http`, for answers that are read while they come."""

    def stream(self, request: HttpRequest) -> AbstractAsyncContextManager[HttpStream]:
        """Leaving the context closes what was not read. Raises `HttpFailed`."""
        ...


class Http(Protocol):
    """The way out for `http` nodes; the tenant is bound already. Raises `HttpFailed`."""

    async def send(self, request: HttpRequest) -> HttpReply: ...
