"""What PostgreSQL says about itself, for the doctor: versions, roles, walls, limits, clock, notifications.

Everything is read by the runtime role, but for the schema's revision, which only the owner may see.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

import app.db.postgres.models  # noqa: F401  (fills the metadata)
from app.db.base import Base
from app.db.walls import SYSTEM

_HEARD_WITHIN_S = 2.0

_SERVER = text(
    """
    SELECT current_setting('server_version_num')::int AS version_number,
           current_setting('server_version') AS version,
           current_setting('max_connections')::int AS max_connections,
           current_setting('superuser_reserved_connections')::int AS reserved,
           (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user) AS role_limit,
           (SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout') AS statement_timeout_ms,
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connected
    """
)
_ROLE = text(
    """
    SELECT rolname AS name, rolsuper AS superuser, rolbypassrls AS bypasses, rolinherit AS inherits,
           EXISTS (SELECT FROM pg_roles s WHERE s.rolname = :system
                   AND pg_has_role(r.oid, s.oid, 'MEMBER')) AS may_be_system
    FROM pg_roles r WHERE rolname = current_user
    """
)
_VECTOR = text(
    """
    SELECT e.extversion, n.nspname
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'
    """
)
_TABLES = text(
    """
    SELECT c.relname AS name, c.relispartition AS partition,
           c.relrowsecurity AND c.relforcerowsecurity AS walled,
           has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE') AS granted
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')
      AND (c.relname = ANY(:ours) OR EXISTS (
          SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'org_id' AND a.attnum > 0))
    ORDER BY c.relname
    """
)
_WORK = text(
    """
    SELECT count(*) FILTER (WHERE waits) AS due, coalesce(max(waited_s) FILTER (WHERE waits), 0) AS waited_s,
           count(*) FILTER (WHERE left_over) AS expired,
           coalesce(max(left_s) FILTER (WHERE left_over), 0) AS expired_for_s
    FROM (
        SELECT state = 'queued' AND due_at <= now() AS waits,
               state = 'running' AND lease_until < now() AS left_over,
               extract(epoch FROM now() - due_at)::float AS waited_s,
               extract(epoch FROM now() - lease_until)::float AS left_s
        FROM work_items WHERE state IN ('queued', 'running')
    ) open
    """
)
_RUNS = text(
    """
    SELECT count(*) FILTER (WHERE waits) AS due, coalesce(max(waited_s) FILTER (WHERE waits), 0) AS waited_s,
           count(*) FILTER (WHERE left_over) AS expired,
           coalesce(max(left_s) FILTER (WHERE left_over), 0) AS expired_for_s,
           count(*) FILTER (WHERE taken_up) AS taken_up
    FROM (
        SELECT lease_until IS NULL AS waits, lease_until < now() AS left_over,
               lease_until >= now() AND lease_owner IS NOT NULL
                   AND (mode = 'background' OR fence > 1) AS taken_up,
               extract(epoch FROM now() - COALESCE(due_at, created_at))::float AS waited_s,
               extract(epoch FROM now() - lease_until)::float AS left_s
        FROM agent_runs WHERE finished_at IS NULL AND (due_at IS NULL OR due_at < now())
    ) open
    """
)


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """`skew_s` is how far the database's clock is ahead of ours; a `role_limit` of -1 is none."""

    version_number: int
    version: str
    max_connections: int
    reserved: int
    role_limit: int
    statement_timeout_ms: int
    connected: int
    skew_s: float

    @property
    def usable_connections(self) -> int:
        usable = self.max_connections - self.reserved
        return min(usable, self.role_limit) if self.role_limit >= 0 else usable


@dataclass(frozen=True, slots=True)
class RoleFacts:
    name: str
    superuser: bool
    bypasses: bool
    inherits: bool
    may_be_system: bool


@dataclass(frozen=True, slots=True)
class WallFacts:
    """Names of tables. `exposed` are partitions that can be read past the wall of their parent."""

    walled: list[str]
    open: list[str]
    exposed: list[str]
    missing: list[str]


@dataclass(frozen=True, slots=True)
class WorkFacts:
    """Open work of all organizations: what is due, and what dead processes still hold."""

    due: int
    waited_s: float
    expired: int
    expired_for_s: float


@dataclass(frozen=True, slots=True)
class RunFacts(WorkFacts):
    """`taken_up` execute in a process that claims runs, other than those which somebody waits for."""

    taken_up: int


async def server_facts(connection: AsyncConnection) -> ServerFacts:
    row = (await connection.execute(_SERVER)).one()
    before = datetime.now(UTC)
    theirs: datetime = (await connection.execute(text("SELECT clock_timestamp()"))).scalar_one()
    middle = before + (datetime.now(UTC) - before) / 2
    return ServerFacts(**row._mapping, skew_s=(theirs - middle).total_seconds())


async def role_facts(connection: AsyncConnection) -> RoleFacts:
    return RoleFacts(*(await connection.execute(_ROLE, {"system": SYSTEM})).one())


async def vector_extension(connection: AsyncConnection) -> tuple[str, str] | None:
    """Version and schema of pgvector; None where it is not installed in this database."""
    row = (await connection.execute(_VECTOR)).one_or_none()
    return (row.extversion, row.nspname) if row else None


async def wall_facts(connection: AsyncConnection) -> WallFacts:
    ours = sorted(Base.metadata.tables)
    rows = (await connection.execute(_TABLES, {"ours": ours})).all()
    whole = [row for row in rows if not row.partition]
    return WallFacts(
        walled=[row.name for row in whole if row.walled],
        open=[row.name for row in whole if not row.walled],
        exposed=[row.name for row in rows if row.partition and row.granted],
        missing=sorted(set(ours) - {row.name for row in rows}),
    )


async def revision(connection: AsyncConnection) -> str:
    """The schema's revision; empty before the first migration."""
    exists = text("SELECT to_regclass('public.alembic_version') IS NOT NULL")
    if not (await connection.execute(exists)).scalar_one():
        return ""
    found = await connection.execute(text("SELECT version_num FROM public.alembic_version"))
    return found.scalar_one_or_none() or ""


async def hears_notifications(engine: AsyncEngine) -> bool:
    """Whether a notification of one connection reaches another: not through a transaction pooler."""
    heard = asyncio.Event()
    channel = f"orrery_doctor_{uuid4().hex}"
    async with engine.connect() as listener:
        raw = (await listener.get_raw_connection()).driver_connection
        if raw is None:
            return False

        def hear(*_: object) -> None:
            heard.set()

        await raw.add_listener(channel, hear)
        async with engine.begin() as speaker:
            await speaker.execute(text("SELECT pg_notify(:channel, '')"), {"channel": channel})
        try:
            async with asyncio.timeout(_HEARD_WITHIN_S):
                await heard.wait()
        except TimeoutError:
            return False
        finally:
            await raw.remove_listener(channel, hear)
    return True


async def work_facts(session: AsyncSession) -> tuple[WorkFacts, RunFacts]:
    """Items, then runs; takes a session of `system_work`."""
    items = (await session.execute(_WORK)).one()
    runs = (await session.execute(_RUNS)).one()
    return WorkFacts(*items), RunFacts(*runs)
