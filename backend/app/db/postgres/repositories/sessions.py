"""People's sessions; takes a session of `system_work`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.paging import Page, PageRequest
from app.db.postgres.models.identity import Membership, User
from app.db.postgres.models.sessions import SessionEnd, UserSession
from app.db.postgres.repositories.listing import Listing, Sorts

_KEPT_AFTER_END = timedelta(days=7)
"""How long an ended session is kept, to see afterwards why it ended."""


@dataclass(frozen=True, slots=True)
class Held:
    """A session, locked; `alive` as of now, by the database's clock."""

    session: UserSession
    alive: bool
    now: datetime


class UserSessions(Listing[UserSession]):
    """The only door to the table of sessions."""

    model = UserSession
    sorts: ClassVar[Sorts] = {"created_at": UserSession.created_at}

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def now(self) -> datetime:
        found: datetime = (await self.session.execute(select(func.clock_timestamp()))).scalar_one()
        return found

    async def add(self, session: UserSession) -> None:
        self.session.add(session)
        await self.session.flush()

    async def held(self, session_id: UUID) -> Held | None:
        """Locks the session, so that its refreshes happen one after another, then sees how it stands."""
        lock = select(UserSession).where(UserSession.id == session_id).with_for_update()
        session = (await self.session.execute(lock)).scalar_one_or_none()
        if session is None:
            return None
        now = func.clock_timestamp()
        statement = (
            select(and_(_open(now), User.suspended_at.is_(None), Membership.id.is_not(None)), now)
            .select_from(UserSession)
            .join(User, User.id == UserSession.user_id)
            .outerjoin(
                Membership,
                and_(Membership.org_id == UserSession.organization_id, Membership.user_id == User.id),
            )
            .where(UserSession.id == session_id)
        )
        return Held(session, *(await self.session.execute(statement)).one())

    async def page(self, user_id: UUID, org_id: UUID | None, request: PageRequest) -> Page[UserSession]:
        """The user's open sessions; of one organization where it is given."""
        return await self.paged(request, select(UserSession).where(_of(user_id, org_id), _open(func.now())))

    async def end_one(self, session_id: UUID, reason: SessionEnd) -> None:
        """Ends the session, if it is open."""
        await self._end(UserSession.id == session_id, reason)

    async def end(
        self,
        user_id: UUID,
        reason: SessionEnd,
        *,
        org_id: UUID | None = None,
        only: UUID | None = None,
        but: UUID | None = None,
    ) -> list[UUID]:
        """Ends open sessions of the user: all, `only` one, or all `but` one. Answers which they were."""
        which = _of(user_id, org_id)
        if only is not None:
            which &= UserSession.id == only
        if but is not None:
            which &= UserSession.id != but
        return await self._end(which, reason)

    async def end_surplus(self, user_id: UUID, allowed: int) -> list[UUID]:
        """Ends the oldest open sessions, beyond the `allowed` newest ones. Answers which they were."""
        mine = _of(user_id, None) & _open(func.now())
        surplus = select(UserSession.id).where(mine).order_by(UserSession.id.desc()).offset(allowed)
        return await self._end(UserSession.id.in_(surplus), SessionEnd.SURPLUS)

    async def _end(self, which: ColumnElement[bool], reason: SessionEnd) -> list[UUID]:
        statement = (
            update(UserSession)
            .where(which, _open(func.now()))
            .values(ended_at=func.now(), end_reason=reason)
            .returning(UserSession.id)
            .execution_options(synchronize_session=False)
        )
        return list((await self.session.execute(statement)).scalars())

    async def sweep(self, user_id: UUID) -> None:
        """Removes the user's sessions that ended or expired a while ago."""
        long_ago = func.now() - _KEPT_AFTER_END
        await self.session.execute(
            delete(UserSession).where(
                UserSession.user_id == user_id,
                or_(UserSession.ended_at < long_ago, UserSession.expires_at < long_ago),
            )
        )


def _open(now: ColumnElement[datetime]) -> ColumnElement[bool]:
    return and_(UserSession.ended_at.is_(None), UserSession.expires_at > now)


def _of(user_id: UUID, org_id: UUID | None) -> ColumnElement[bool]:
    mine = UserSession.user_id == user_id
    return mine if org_id is None else and_(mine, UserSession.organization_id == org_id)
