"""`Idempotency-Key`: a POST that creates or runs something has its effect once and one answer (ADR 7).

Every POST route says which it is, `idempotent()` or `without_key("why")`, or start-up fails (`api.guard`).
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Depends, Header, Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.body_digest import BodyDigest
from app.api.dependencies import admitted_caller, get_resources
from app.api.errors import response_to
from app.api.middleware import EXTRA_HEADERS
from app.core.errors import BadRequest, FieldError
from app.services.idempotency_service import AlreadyDone, Answer, Flight, KeyedRequest

_NAME: Final = "Idempotency-Key"
_RAW_NAME: Final = b"idempotency-key"
_SCOPE: Final = "orrery.idempotency"
_VALID = re.compile(r"[\x21-\x7e]{1,255}")
_KEPT = ("content-type", "etag", "location")

KeyHeader = Annotated[
    str | None,
    Header(
        alias=_NAME,
        description="1 to 255 visible ASCII characters. The same request with the same key has its effect "
        "once and gets the same answer; another request with the key is refused (409).",
        json_schema_extra={"pattern": "^[!-~]{1,255}$", "examples": ["4f2b6c1e-order-17"]},
    ),
]


class Exchange:
    """A request that came with a key, and what became of it."""

    def __init__(self, scope: Scope) -> None:
        self.digest = BodyDigest(scope)
        self.flight: Flight | None = None
        self.secret = False

    @property
    def undecided(self) -> bool:
        """Whether the answer decides if the effect is committed."""
        return self.flight is not None and not self.flight.effect.over

    async def settle(self, held: list[Message]) -> None:
        """Commits the effect with its answer; a refusal takes it back, so that the key stays free."""
        if self.flight is None:
            return
        status, headers = held[0]["status"], Headers(raw=held[0]["headers"])
        if status >= 400:
            await self.flight.effect.close()
            return
        body = b"".join(message.get("body", b"") for message in held[1:])
        kept = {name: headers[name] for name in _KEPT if name in headers}
        if self.secret:
            await self.flight.settle(Answer(status, {}, None, UUID(json.loads(body)["id"])))
        else:
            await self.flight.settle(Answer(status, kept, body))

    async def end(self) -> None:
        if self.flight is not None:
            await self.flight.effect.close()


class IdempotentAnswers:
    """Holds the answer back until the effect has been committed with it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _carries_key(scope):
            await self.app(scope, receive, send)
            return
        exchange = scope[_SCOPE] = Exchange(scope)
        held: list[Message] = []

        async def hold(message: Message) -> None:
            if held or exchange.undecided:
                held.append(message)
            else:
                await send(message)

        try:
            await self.app(scope, exchange.digest.reading(receive), hold)
            if held:
                await self._answer(exchange, held, scope, receive, send)
        finally:
            await exchange.end()

    async def _answer(
        self, exchange: Exchange, held: list[Message], scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            await exchange.settle(held)
        except Exception as error:
            response = await response_to(Request(scope), error)
            await response(scope, receive, send)
            return
        for message in held:
            await send(message)


class Idempotent:
    """A route's effect happens once per key. Answers the id of what an earlier request made, if `attach`.

    `late`: the effect begins with the first unit of work that says so, because there is much to do before.
    `attach`: the route answers again itself, from what was made. `secret`: the answer is never kept.
    """

    def __init__(self, *, late: bool = False, attach: bool = False, secret: bool = False) -> None:
        self.late, self.attach, self.secret = late, attach, secret

    async def __call__(self, request: Request, key: KeyHeader = None) -> UUID | None:
        exchange: Exchange | None = request.scope.get(_SCOPE)
        if exchange is None:
            return None
        caller, resources = admitted_caller(request), await get_resources(request)
        keyed = KeyedRequest(
            caller.tenant, caller.principal, request.method, request.scope["path"], _checked(request)
        )
        flight = await resources.idempotency.take_off(keyed, exchange.digest.value)
        exchange.flight, exchange.secret = flight, self.secret
        try:
            await (self._begin_late(request, flight) if self.late else self._begin(request, flight))
        except AlreadyDone as done:
            if not self.attach or done.answer.subject_id is None:
                raise
            request.scope[EXTRA_HEADERS].append((b"idempotency-replayed", b"true"))
            return done.answer.subject_id
        return None

    async def _begin(self, request: Request, flight: Flight) -> None:
        await request.body()
        await flight.effect.begin()

    async def _begin_late(self, request: Request, flight: Flight) -> None:
        flight.effect.offer()
        if not request.headers.get("content-type", "").startswith("multipart/"):
            await request.body()
            await flight.look()


class WithoutKey:
    """Marks a POST route that takes no key, and says why."""

    def __init__(self, why: str) -> None:
        self.why = why

    async def __call__(self) -> None:
        return None


def idempotent(*, late: bool = False, secret: bool = False) -> Any:
    """`dependencies=[allow(…), idempotent()]`: after the permission, before anything is done."""
    return Depends(Idempotent(late=late, secret=secret))


def without_key(why: str) -> Any:
    return Depends(WithoutKey(why))


EarlierDep = Annotated[UUID | None, Depends(Idempotent(attach=True))]
"""What an earlier request with this key made, for routes that answer from it."""


async def look_once_read(request: Request) -> None:
    """Ends a repeated request as soon as its body has been read, before anything is made of it."""
    exchange: Exchange | None = request.scope.get(_SCOPE)
    if exchange is not None and exchange.undecided and exchange.flight is not None:
        await exchange.flight.look()


def _carries_key(scope: Scope) -> bool:
    return (
        scope["type"] == "http"
        and scope["method"] == "POST"
        and any(name == _RAW_NAME for name, _ in scope["headers"])
    )


def _checked(request: Request) -> str:
    keys = request.headers.getlist(_NAME)
    if len(keys) == 1 and _VALID.fullmatch(keys[0]):
        return keys[0]
    got = f"it is {keys[0]!r}" if len(keys) == 1 else f"there are {len(keys)}"
    message = f"The header {_NAME} takes one key of 1 to 255 visible ASCII characters; {got}."
    raise BadRequest(
        message,
        code="invalid_idempotency_key",
        errors=[FieldError(f"/header/{_NAME}", "invalid_idempotency_key", message)],
    )
