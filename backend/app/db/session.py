"""The one place where transactions begin and end, and where the tenant is bound.

Row-level security reads `app.org`, set here for the length of one transaction. Work across
organizations (key look-up, claims, sweeps, the event log's group commit) takes the role
`orrery_system` for one transaction; nothing else may.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from app.core.errors import BadRequest
from app.core.failpoints import failpoint
from app.core.tasks import cancellation_kept
from app.db.connection import DriverConnection, driver_transaction

Wake = Callable[[str], Awaitable[None]]

_QUEUES = "queues"
_BIND_TENANT = text("SELECT set_config('app.org', :org, true)")
_SYSTEM_ROLE = text("SET LOCAL ROLE orrery_system")

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whose rows a unit of work sees: an organization, and usually one project of it."""

    org_id: UUID
    project_id: UUID | None = None

    @property
    def project(self) -> UUID:
        """The project's id; `project_required` (400) where the credential names none."""
        if self.project_id is None:
            raise BadRequest(
                "This needs a project: send the header X-Project-Id, or use a key of one project.",
                code="project_required",
            )
        return self.project_id


@dataclass(frozen=True, slots=True)
class Database:
    """Opens units of work. `wake(queue)` is called after commit for queues marked by `wake_after`."""

    engine: AsyncEngine
    sessions: async_sessionmaker[AsyncSession]
    wake: Wake

    @asynccontextmanager
    async def unit_of_work(self, tenant: Tenant) -> AsyncIterator[AsyncSession]:
        """One transaction that sees one organization; committed on leaving, rolled back on an error."""
        with cancellation_kept():
            async with self.sessions() as session:
                async with session.begin():
                    await session.execute(_BIND_TENANT, {"org": str(tenant.org_id)})
                    yield session
                await self._wake_marked(session)

    @asynccontextmanager
    async def system_work(self) -> AsyncIterator[AsyncSession]:
        """One transaction as `orrery_system`: across organizations, on a listed set of tables only."""
        with cancellation_kept():
            async with self.sessions() as session:
                async with session.begin():
                    await session.execute(_SYSTEM_ROLE)
                    yield session
                await self._wake_marked(session)

    @asynccontextmanager
    async def no_ones_work(self) -> AsyncIterator[AsyncSession]:
        """One transaction that sees no tenant's rows: for database functions, or to ask if it lives."""
        with cancellation_kept():
            async with self.sessions() as session, session.begin():
                yield session

    @asynccontextmanager
    async def reading(self, tenant: Tenant) -> AsyncIterator[DriverConnection]:
        """One read-only transaction that sees one organization, on the driver itself: for hot paths.

        Statements take a third of the CPU time that they take through a session, and BEGIN comes with the
        binding of the tenant in one round trip. Errors of the driver arrive as SQLAlchemy's `DBAPIError`.
        """
        begin = f"BEGIN READ ONLY; SET LOCAL app.org = '{UUID(int=tenant.org_id.int)}'"
        async with driver_transaction(self.engine, begin) as connection:
            yield connection

    async def _wake_marked(self, session: AsyncSession) -> None:
        for queue in sorted(session.info.pop(_QUEUES, ())):
            try:
                failpoint("queue.waking")
                await self.wake(queue)
                failpoint("queue.woken")
            except Exception as error:  # the sweeper finds what a lost message would have woken
                logger.warning("wake_failed", queue=queue, error=repr(error))


def wake_after(session: AsyncSession, queue: str) -> None:
    """Wake `queue`'s workers once this transaction has committed."""
    session.info.setdefault(_QUEUES, set()).add(queue)


def make_database(engine: AsyncEngine, wake: Wake) -> Database:
    return Database(engine, async_sessionmaker(engine, expire_on_commit=False), wake)
