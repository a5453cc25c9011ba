"""Bringing a database to the newest schema: Alembic, run by whoever owns the tables."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.core.errors import Misconfigured
from app.db.connection import open_engine

BACKEND = Path(__file__).resolve().parents[2]
_LOCK = 0x6F727265  # one migration at a time, whichever replica starts first
_ROLE_CHECK = text(
    "SELECT rolsuper OR rolbypassrls AS unsafe, rolinherit, current_user AS name"
    " FROM pg_roles WHERE rolname = current_user"
)


def alembic_config(connection: Connection) -> Config:
    config = Config(str(BACKEND / "alembic.ini"))
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection) -> None:
    config = alembic_config(connection)
    _refuse_newer(connection, ScriptDirectory.from_config(config))
    command.upgrade(config, "head")


def _refuse_newer(connection: Connection, ours: ScriptDirectory) -> None:
    known = {script.revision for script in ours.walk_revisions()}
    current = MigrationContext.configure(connection).get_current_heads()
    connection.rollback()  # Alembic begins a transaction for each migration itself
    if foreign := [revision for revision in current if revision not in known]:
        raise Misconfigured(
            f"The database has the schema {foreign[0]!r} of a newer Orrery, and this one knows "
            f"{newest_revision()!r} at most: upgrade Orrery, or restore a backup from before that upgrade."
        )


def newest_revision() -> str:
    """The revision that `migrate` ends at."""
    return ScriptDirectory(str(BACKEND / "alembic")).get_current_head() or ""


async def migrate(url: str) -> None:
    """Upgrades the database at `url`, whose role must own the schema. Safe to run from several processes.

    Raises:
        Misconfigured: the database has the schema of a newer version.
    """
    async with open_engine(url, pool_size=2, long_statements=True) as engine, engine.begin() as lock:
        await lock.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        async with engine.connect() as connection:
            await connection.run_sync(_upgrade)


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
