"""Bringing a database to the newest schema: Alembic, run by whoever owns the tables.

Alembic is imported only where there is something to migrate: most starts find nothing to do.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.core.errors import Misconfigured
from app.db.connection import open_engine

_MIGRATIONS = Path(__file__).resolve().parents[2] / "alembic" / "versions"
_LOCK = 0x6F727265  # one migration at a time, whichever replica starts first
_ROLE_CHECK = text(
    "SELECT rolsuper OR rolbypassrls AS unsafe, rolinherit, current_user AS name"
    " FROM pg_roles WHERE rolname = current_user"
)


def _revisions() -> list[str]:
    """The revisions of the migrations, which are numbered: the oldest first."""
    return sorted(path.name.partition("_")[0] for path in _MIGRATIONS.glob("[0-9]*.py"))


def newest_revision() -> str:
    """The revision that `migrate` ends at."""
    return _revisions()[-1]


async def migrate(url: str) -> None:
    """Upgrades the database at `url`, whose role must own the schema. Safe to run from several processes.

    Raises:
        Misconfigured: the database has the schema of a newer version.
    """
    async with open_engine(url, pool_size=2, long_statements=True) as engine, engine.begin() as lock:
        await lock.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        if await _revision_of(lock) == newest_revision():
            return
        from app.db.upgrade import upgrade  # noqa: PLC0415  (Alembic takes as long as the database)

        async with engine.connect() as connection:
            await connection.run_sync(upgrade, _revisions(), newest_revision())


async def _revision_of(connection: AsyncConnection) -> str | None:
    """The one that the database has; None for a database without our schema."""
    if await connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    revision: str | None = await connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


async def check_runtime_role(engine: AsyncEngine) -> None:
    """Refuses to run as a role that row-level security does not bind."""
    async with engine.connect() as connection:
        role = (await connection.execute(_ROLE_CHECK)).one()
    if role.unsafe or role.rolinherit:
        raise Misconfigured(
            f"The database role {role.name!r} is a superuser, bypasses row-level security or inherits other "
            "roles, so it could see every tenant: point ORRERY_DATABASE_URL at the role 'orrery_app' that "
            "`orrery migrate` creates (give it a password with ALTER ROLE)."
        )
