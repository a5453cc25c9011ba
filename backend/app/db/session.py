"""The one place where transactions begin and end, and where the tenant is bound.

Row-level security reads `app.org`, set here for the length of one transaction. Work across
organizations (key look-up, claims, sweeps, the event log's group commit) takes the role
`orrery_system` for one transaction; nothing else may.

A request that must have its effect only once does all its work in one transaction: its `Effect`, which
every unit of work of the request joins as a savepoint (ADR 7).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker

from app.core.errors import BadRequest
from app.core.failpoints import failpoint
from app.core.tasks import cancellation_kept
from app.db.connection import DriverConnection, driver_transaction
from app.db.system_connection import SystemConnection

if TYPE_CHECKING:
    from asyncpg import Record

Wake = Callable[[str], Awaitable[None]]

_QUEUES = "queues"
_CALLS = "calls"
_AGAIN_S = 0.05
_BIND_TENANT = text("SELECT set_config('app.org', :org, true)")
_SYSTEM_ROLE = text("SET LOCAL ROLE orrery_system")
_OWN_ROLE = text("SET LOCAL ROLE NONE")

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
    """Opens units of work. `wake(queue)` is called after commit for queues marked by `wake_after`.

    `system` is left out where a transaction pooler lies between.
    """

    engine: AsyncEngine
    sessions: async_sessionmaker[AsyncSession]
    wake: Wake
    system: SystemConnection | None = None

    @asynccontextmanager
    async def unit_of_work(self, tenant: Tenant, *, effect: bool = False) -> AsyncIterator[AsyncSession]:
        """One transaction that sees one organization; committed on leaving, rolled back on an error.

        Part of the request's `Effect` where that has begun; `effect` begins one that waits for this.
        """
        with cancellation_kept():
            joined = await _joined(effect)
            if joined is not None:
                async with joined.unit(tenant) as session:
                    yield session
                return
            async with self.sessions() as session:
                async with session.begin():
                    await session.execute(_BIND_TENANT, {"org": str(tenant.org_id)})
                    yield session
                _call_all(_called(session))
                await self.wake_all(_marked(session))

    @asynccontextmanager
    async def system_work(self) -> AsyncIterator[AsyncSession]:
        """One transaction as `orrery_system`: across organizations, on a listed set of tables only."""
        with cancellation_kept():
            joined = await _joined(effect=False)
            if joined is not None:
                async with joined.system_unit() as session:
                    yield session
                return
            async with self.sessions() as session:
                async with session.begin():
                    await session.execute(_SYSTEM_ROLE)
                    yield session
                await self.wake_all(_marked(session))

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
        binding of the tenant in one round trip.
        Inside of an `Effect` it is part of that: a request never holds two connections.
        """
        joined = await _joined(effect=False)
        if joined is not None:
            yield await joined.driver(tenant)
            return
        begin = f"BEGIN READ ONLY; SET LOCAL app.org = '{UUID(int=tenant.org_id.int)}'"
        with cancellation_kept():
            async with driver_transaction(self.engine, begin) as connection:
                yield connection

    @asynccontextmanager
    async def writing(
        self, tenant: Tenant, *, subject_id: UUID | None = None
    ) -> AsyncIterator[DriverConnection]:
        """`unit_of_work` on the driver itself.

        `subject_id`: what it makes outlives the request, whose `Effect`, if any, is committed with it; the
        answer to a repeated request is then made of that row.
        """
        joined = await _joined(effect=False)
        if joined is not None:
            yield await joined.driver(tenant)
            if subject_id is not None:
                await joined.keep_with(subject_id)
            return
        begin = f"BEGIN; SET LOCAL app.org = '{UUID(int=tenant.org_id.int)}'"
        with cancellation_kept():
            async with driver_transaction(self.engine, begin) as connection:
                yield connection

    async def system_statement(self, query: str, *args: object) -> list[Record]:
        """One statement as `orrery_system` that commits by itself, whatever the request is part of."""
        with cancellation_kept():
            if self.system is not None:
                return await self.system.fetch(query, *args)
            async with driver_transaction(self.engine, "BEGIN; SET LOCAL ROLE orrery_system") as connection:
                return await connection.fetch(query, *args)

    @contextmanager
    def apart(self) -> Iterator[Database]:
        """The same database, whose system statements wait for nobody else's, for the length of the block."""
        if self.system is None:
            yield self
            return
        own = SystemConnection(self.system.url, self.system.timeout_s)
        try:
            yield replace(self, system=own)
        finally:
            own.close()

    async def wake_all(self, queues: set[str]) -> None:
        for queue in sorted(queues):
            try:
                failpoint("queue.waking")
                await self.wake(queue)
                failpoint("queue.woken")
            except Exception as error:  # the sweeper finds what a lost message would have woken
                logger.warning("wake_failed", queue=queue, error=repr(error))


class Once(Protocol):
    """What makes an effect happen once: a record that is committed with it."""

    async def claim(self, connection: AsyncConnection) -> bool:
        """Whether the effect may begin; False: another request is at it, try again. Raises if it is done."""
        ...

    async def record(self, connection: AsyncConnection, subject_id: UUID) -> None:
        """Writes that the effect made `subject_id`; committed next."""
        ...

    def ended(self) -> None:
        """The transaction is over, whether it was committed or taken back."""
        ...


@dataclass(slots=True)
class Effect:
    """The one transaction of a request: what it does and the record of it are committed together.

    Units of work of the task that made it join it, once it has begun.
    """

    database: Database
    tenant: Tenant
    once: Once
    connection: AsyncConnection | None = None
    over: bool = False
    kept: bool = False
    queues: set[str] = field(default_factory=set)
    calls: list[Callable[[], None]] = field(default_factory=list)
    task: Any = field(default_factory=asyncio.current_task)

    def offer(self) -> None:
        """Lets the first unit of work that says `effect=True` begin it."""
        _effect.set(self)

    async def begin(self) -> None:
        """Opens the transaction; waits, without a connection, while another request is at it."""
        _effect.set(self)
        try:
            while True:
                if await self._claimed():
                    return
                await asyncio.sleep(_AGAIN_S)
        except BaseException:
            await self.close()
            raise

    async def _claimed(self) -> bool:
        connection = await self.database.engine.connect()
        claimed = False
        try:
            await connection.begin()
            await connection.execute(_BIND_TENANT, {"org": str(self.tenant.org_id)})
            claimed = await self.once.claim(connection)
        finally:
            if not claimed:
                await asyncio.shield(connection.close())
        self.connection = connection if claimed else None
        return claimed

    @asynccontextmanager
    async def unit(self, tenant: Tenant | None = None) -> AsyncIterator[AsyncSession]:
        """A unit of work as a savepoint of the transaction."""
        connection = self._joined_by(tenant or self.tenant)
        async with self.database.sessions(
            bind=connection, join_transaction_mode="create_savepoint"
        ) as session:
            async with session.begin():
                yield session
            self.queues |= _marked(session)
            self.calls += _called(session)

    async def keep_with(self, subject_id: UUID) -> None:
        """Commits the effect as the making of `subject_id`."""
        await self.once.record(self._joined_by(self.tenant), subject_id)
        await self.keep()

    @asynccontextmanager
    async def system_unit(self) -> AsyncIterator[AsyncSession]:
        """The same as `orrery_system`, which the savepoint alone would not give up."""
        async with self.unit() as session:
            await session.execute(_SYSTEM_ROLE)
            yield session
            await session.flush()
            await session.execute(_OWN_ROLE)

    async def driver(self, tenant: Tenant) -> DriverConnection:
        """The driver's connection, in the transaction; a statement that fails there takes all of it back."""
        return DriverConnection.of(await self._joined_by(tenant).get_raw_connection())

    def _joined_by(self, tenant: Tenant) -> AsyncConnection:
        if self.connection is None or tenant.org_id != self.tenant.org_id:
            raise RuntimeError("joins a transaction that is closed, or another organization's")
        return self.connection

    async def keep(self) -> None:
        """Commits. Afterwards, units of work are transactions of their own again."""
        if self.connection is None:
            raise RuntimeError("there is no transaction to commit")
        try:
            await self.connection.commit()
            self.kept = True
        finally:
            await self.close()
        _call_all(self.calls)
        await self.database.wake_all(self.queues)

    async def close(self) -> None:
        """Takes back whatever was not committed."""
        connection, self.connection, self.over = self.connection, None, True
        try:
            if connection is not None:
                await asyncio.shield(connection.close())
        finally:
            self.once.ended()


_effect: ContextVar[Effect | None] = ContextVar("effect", default=None)


async def _joined(effect: bool) -> Effect | None:
    """The effect that a unit of work of this task belongs to. Tasks that a request starts outlive it."""
    current = _effect.get()
    if current is None or current.over or asyncio.current_task() is not current.task:
        return None
    if current.connection is None and effect:
        await current.begin()
    return current if current.connection is not None else None


def wake_after(session: AsyncSession, queue: str) -> None:
    """Wake `queue`'s workers once this transaction has committed."""
    session.info.setdefault(_QUEUES, set()).add(queue)


def after_commit(session: AsyncSession, call: Callable[[], None]) -> None:
    """Calls `call`, which must not fail, once this transaction has committed."""
    session.info.setdefault(_CALLS, []).append(call)


def _marked(session: AsyncSession) -> set[str]:
    queues: set[str] = session.info.pop(_QUEUES, set())
    return queues


def _called(session: AsyncSession) -> list[Callable[[], None]]:
    calls: list[Callable[[], None]] = session.info.pop(_CALLS, [])
    return calls


def _call_all(calls: list[Callable[[], None]]) -> None:
    for call in calls:
        call()


def make_database(engine: AsyncEngine, wake: Wake, system: SystemConnection | None = None) -> Database:
    return Database(engine, async_sessionmaker(engine, expire_on_commit=False), wake, system)
