"""Idempotency keys: one effect and one answer for equal requests, whatever dies in between (ADR 7).

The key is not claimed beforehand. The effect, its key and its answer are rows of one transaction, which
holds an advisory lock meanwhile: a process that dies takes both back, and nobody has to be waited out.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.errors import AppError, Conflict
from app.core.ids import stable_id
from app.db.base import Json
from app.db.postgres.repositories.idempotency import IdempotencyKeys
from app.db.session import Database, Effect, Tenant

_UUID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request was answered, as it is kept. Without a body, `subject_id` says what it made."""

    status: int
    headers: Json
    body: bytes | None
    subject_id: UUID | None = None


class AlreadyDone(AppError):
    """Raised instead of a second effect; carries the first one's answer, which is what is sent."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("this request was executed before")
        self.answer = answer


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """What a key belongs to, and the digest that tells equal requests from others."""

    tenant: Tenant
    principal: UUID
    method: str
    path: str
    key: str

    @property
    def id(self) -> UUID:
        """The path comes last: it alone may hold any character."""
        return stable_id(
            "idempotency", self.principal, self.tenant.project_id, self.method, self.key, self.path
        )


@dataclass(slots=True)
class Landing:
    """The end of a flight, and whether its effect was kept."""

    event: asyncio.Event = field(default_factory=asyncio.Event)
    kept: bool = False


@dataclass(slots=True)
class IdempotencyService:
    """`flights` are the keys that this process is at: their repetitions wait here, without a connection.

    `pepper` keys the digests of requests, which may hold secrets that are easy to guess.
    """

    database: Database
    pepper: bytes
    retention_s: float
    wait_s: float
    flights: dict[UUID, Landing] = field(default_factory=dict)

    async def take_off(self, request: KeyedRequest, digest: Callable[[], bytes]) -> Flight:
        """Waits while another request of this process is at the key; 409 after `wait_s`."""
        landing = Landing()
        try:
            async with asyncio.timeout(self.wait_s):
                while (other := self.flights.setdefault(request.id, landing)) is not landing:
                    await other.event.wait()
                    if other.kept:
                        break  # there is an answer: all who waited may ask for it at once
        except TimeoutError:
            raise in_progress(request) from None
        return Flight(self, request, digest, landing)


@dataclass(slots=True)
class Flight:
    """One request on its way to its effect. `digest` may be asked once the body has been read."""

    service: IdempotencyService
    request: KeyedRequest
    digest: Callable[[], bytes]
    landing: Landing
    effect: Effect = field(init=False)
    _give_up: float = field(init=False)

    def __post_init__(self) -> None:
        self.effect = Effect(self.service.database, self.request.tenant, self)
        self._give_up = asyncio.get_running_loop().time() + self.service.wait_s

    async def look(self) -> None:
        """`AlreadyDone` where it is, for those whose effect begins late."""
        try:
            async with self.service.database.unit_of_work(self.request.tenant) as session:
                await self._refuse_done(IdempotencyKeys(session, self.request.tenant))
        except BaseException:
            await self.effect.close()
            raise

    async def claim(self, connection: AsyncConnection) -> bool:
        """`AlreadyDone`, or 409 where another process is at it for longer than we wait."""
        keys = IdempotencyKeys(connection, self.request.tenant)
        locked = await keys.lock(self.request.id)
        await self._refuse_done(keys)
        if not locked and asyncio.get_running_loop().time() >= self._give_up:
            raise in_progress(self.request)
        return locked

    async def record(self, connection: AsyncConnection, subject_id: UUID) -> None:
        await self._add(connection, Answer(200, {}, None, subject_id))

    async def settle(self, answer: Answer) -> None:
        """Commits the effect together with its answer."""
        if self.effect.connection is None:
            raise RuntimeError("no unit of work took part in this effect")
        await self._add(self.effect.connection, answer)
        await self.effect.keep()

    def ended(self) -> None:
        """Lets the next request with this key go on."""
        if self.service.flights.get(self.request.id) is self.landing:
            del self.service.flights[self.request.id]
        self.landing.kept = self.effect.kept
        self.landing.event.set()

    async def _refuse_done(self, keys: IdempotencyKeys) -> None:
        row = await keys.find(self.request.id)
        if row is None:
            return
        if row.digest != self._digest():
            raise Conflict(
                f"The Idempotency-Key {self.request.key!r} was used for another request to "
                f"{self.request.path}: send the same query and body as then, or use a new key.",
                code="idempotency_key_reused",
            )
        raise AlreadyDone(Answer(row.status, row.headers, row.body, row.subject_id))

    def _digest(self) -> bytes:
        return hmac.digest(self.service.pepper, self.digest(), "sha256")

    async def _add(self, connection: AsyncConnection, answer: Answer) -> None:
        request = self.request
        mentions = {UUID(found.decode()) for found in _UUID.findall(answer.body or b"")}
        await IdempotencyKeys(connection, request.tenant).add(
            request.id,
            retention_s=self.service.retention_s,
            principal=request.principal,
            method=request.method,
            path=request.path,
            key=request.key,
            digest=self._digest(),
            status=answer.status,
            headers=answer.headers,
            body=answer.body,
            subject_id=answer.subject_id,
            mentions=sorted(mentions),
        )


def in_progress(request: KeyedRequest) -> Conflict:
    error = Conflict(
        f"A request with the Idempotency-Key {request.key!r} is still executing; send it again later.",
        code="idempotency_in_progress",
    )
    error.retry_after_s = 1
    return error
