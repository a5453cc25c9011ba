"""How often a login may be tried: a leaky bucket per digest (GCRA), kept in one time stamp.

Each attempt puts its cost, window / limit, on `forgiven_at`; whatever lies further ahead than the window
allows has to wait. It is counted before the password is looked at, so that parallel guesses count too.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Interval, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql import ColumnElement

from app.db.postgres.models.sessions import LoginAttempts as Row

_SWEPT_AT_ONCE = 10


@dataclass(frozen=True, slots=True)
class Allowance:
    """At once up to `limit` attempts, and so many in each `window_s` over time."""

    limit: int
    window_s: float

    @property
    def cost_s(self) -> float:
        return self.window_s / self.limit


class LoginAttempts:
    """Takes a session of `system_work`. The clock is the database's."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def count(self, digest: bytes, allowance: Allowance) -> float:
        """Counts one attempt; 0, or in how many seconds it would be allowed, and then it is not counted."""
        now, cost = func.clock_timestamp(), _seconds(allowance.cost_s)
        latest = now + _seconds(allowance.window_s - allowance.cost_s)
        statement = (
            insert(Row)
            .values(digest=digest, forgiven_at=now + cost)
            .on_conflict_do_update(
                index_elements=[Row.digest],
                set_={"forgiven_at": func.greatest(Row.forgiven_at, now) + cost},
                where=Row.forgiven_at <= latest,
            )
            .returning(Row.digest)
        )
        if (await self.session.execute(statement)).first() is not None:
            return 0
        ahead = select(func.extract("epoch", Row.forgiven_at - latest)).where(Row.digest == digest)
        return max(0.001, float((await self.session.execute(ahead)).scalar_one()))

    async def take_back(self, digest: bytes, allowance: Allowance) -> None:
        """The attempt was a good one, or nobody looked at it."""
        await self.session.execute(
            update(Row)
            .where(Row.digest == digest)
            .values(forgiven_at=Row.forgiven_at - _seconds(allowance.cost_s))
        )

    async def forget(self, digest: bytes) -> None:
        await self.session.execute(delete(Row).where(Row.digest == digest))

    async def sweep(self) -> None:
        """Removes some of what is long forgiven: more than one attempt adds."""
        old = (
            select(Row.digest)
            .where(Row.forgiven_at < func.now())
            .limit(_SWEPT_AT_ONCE)
            .with_for_update(skip_locked=True)
        )
        await self.session.execute(delete(Row).where(Row.digest.in_(old)))


def _seconds(value: float) -> ColumnElement[Interval]:
    return func.make_interval(0, 0, 0, 0, 0, 0, value)
