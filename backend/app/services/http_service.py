"""Requests of `http` nodes: through the guarded way out, with secrets put in at the last moment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from pydantic import SecretStr

from app.agent.core.http import HttpFailed, HttpReply, HttpRequest, HttpStream, SecretHeader
from app.core.egress import (
    Call,
    Egress,
    EgressDenied,
    EgressFailed,
    EgressInvalid,
    EgressTimeout,
    EgressTooLarge,
    Reply,
    ReplyStream,
)
from app.core.errors import AppError

_CODES: Mapping[type[AppError], str] = {
    EgressTimeout: "timeout",
    EgressFailed: "server_error",
    EgressDenied: "egress_denied",
    EgressInvalid: "bad_request",
    EgressTooLarge: "too_large",
}
_MASK = "***"
_SHORTEST = 6
"""Of a secret that is looked for in answers: shorter ones would tear holes into plain text."""


class Secrets(Protocol):
    """Values of a project's secrets, by name."""

    async def reveal(self, reference: str) -> SecretStr: ...


@dataclass(frozen=True, slots=True)
class ProjectHttp:
    """The way out of one project. Implements `Http` and `HttpStreams` of the engine.

    `max_bytes` is the most that a node may take in.
    """

    egress: Egress
    secrets: Secrets
    max_bytes: int

    async def send(self, request: HttpRequest) -> HttpReply:
        secrets: list[str] = []
        call = await self._call(request, secrets)
        with _told(secrets):
            reply = await self.egress.fetch(call)
        return _without(secrets, reply)

    @asynccontextmanager
    async def stream(self, request: HttpRequest) -> AsyncIterator[HttpStream]:
        secrets: list[str] = []
        call = await self._call(request, secrets)
        with _told(secrets):
            async with self.egress.stream(call) as reply:
                yield _Stream(reply, secrets)

    async def _call(self, request: HttpRequest, secrets: list[str]) -> Call:
        """`secrets` is given those of the request."""
        return Call(
            method=request.method,
            url=request.url,
            headers={name: await self._value(given, secrets) for name, given in request.headers.items()},
            body=request.body,
            limits=replace(self.egress.limits, max_bytes=self._limit(request.max_bytes)),
            follow=request.follow,
        )

    def _limit(self, wanted: int | None) -> int:
        most = min(self.max_bytes, self.egress.limits.max_bytes)
        return min(wanted, most) if wanted else most

    async def _value(self, given: str | SecretHeader, secrets: list[str]) -> str:
        if isinstance(given, str):
            return given
        value = (await self.secrets.reveal(given.secret)).get_secret_value()
        secrets.append(value)
        return f"{given.prefix}{value}"


@dataclass(frozen=True, slots=True)
class _Stream:
    """An `HttpStream`. A secret that is torn apart by the server's own framing is found all the same:
    what is looked through is a whole body, or a whole event.
    """

    reply: ReplyStream
    secrets: list[str]

    @property
    def status(self) -> int:
        return self.reply.status

    @property
    def headers(self) -> Mapping[str, str]:
        return {name: _masked(value, self.secrets) for name, value in self.reply.headers.items()}

    async def text(self) -> str:
        body = b"".join([chunk async for chunk in self.reply.chunks()])
        return _masked(body.decode(errors="replace"), self.secrets)

    async def events(self) -> AsyncIterator[str]:
        async for event in self.reply.events():
            yield _masked(event.data, self.secrets)


@contextmanager
def _told(secrets: list[str]) -> Iterator[None]:
    """Failures of the way out, as the engine knows them."""
    try:
        yield
    except (EgressTimeout, EgressFailed, EgressDenied, EgressTooLarge) as error:
        raise HttpFailed(_masked(error.detail, secrets), code=_CODES[type(error)]) from error


def _without(secrets: Iterable[str], reply: Reply) -> HttpReply:
    """The answer, in which the other side may have repeated what it was sent."""
    found = [secret for secret in secrets if len(secret) >= _SHORTEST]
    body, text = reply.body, reply.text
    for secret in found:
        body = body.replace(secret.encode(), _MASK.encode())
    return HttpReply(
        url=_masked(reply.url, found),
        status=reply.status,
        headers={name: _masked(value, found) for name, value in reply.headers.items()},
        body=body,
        text=_masked(text, found),
    )


def _masked(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, _MASK)
    return text
