"""Requests of `http` nodes: through the guarded way out, with secrets put in at the last moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from pydantic import SecretStr

from app.agent.core.interfaces import HttpFailed, HttpReply, HttpRequest, SecretHeader
from app.core.egress import (
    Call,
    Egress,
    EgressDenied,
    EgressFailed,
    EgressInvalid,
    EgressTimeout,
    EgressTooLarge,
    Reply,
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
    """The way out of one project. Implements `Http` of the engine.

    `max_bytes` is the most that a node may take in.
    """

    egress: Egress
    secrets: Secrets
    max_bytes: int

    async def send(self, request: HttpRequest) -> HttpReply:
        secrets: list[str] = []
        call = Call(
            method=request.method,
            url=request.url,
            headers={name: await self._value(given, secrets) for name, given in request.headers.items()},
            body=request.body,
            limits=replace(self.egress.limits, max_bytes=self._limit(request.max_bytes)),
            follow=request.follow,
        )
        try:
            reply = await self.egress.fetch(call)
        except (EgressTimeout, EgressFailed, EgressDenied, EgressTooLarge) as error:
            raise HttpFailed(_masked(error.detail, secrets), code=_CODES[type(error)]) from error
        return _without(secrets, reply)

    def _limit(self, wanted: int | None) -> int:
        most = min(self.max_bytes, self.egress.limits.max_bytes)
        return min(wanted, most) if wanted else most

    async def _value(self, given: str | SecretHeader, secrets: list[str]) -> str:
        if isinstance(given, str):
            return given
        value = (await self.secrets.reveal(given.secret)).get_secret_value()
        secrets.append(value)
        return f"{given.prefix}{value}"


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
