"""Alembic, on a connection of ours. `app.db.migrate` imports this where there is something to migrate."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

from app.core.errors import Misconfigured

_BACKEND = Path(__file__).resolve().parents[2]


def alembic_config(connection: Connection) -> Config:
    config = Config(str(_BACKEND / "alembic.ini"))
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection, known: Container[str], newest: str) -> None:
    """Runs what is missing until `newest`. Raises `Misconfigured` for a schema that is not of `known`."""
    current = MigrationContext.configure(connection).get_current_heads()
    connection.rollback()  # Alembic begins a transaction for each migration itself
    if foreign := [revision for revision in current if revision not in known]:
        raise Misconfigured(
            f"The database has the schema {foreign[0]!r} of a newer Orrery, and this one knows "
            f"{newest!r} at most: upgrade Orrery, or restore a backup from before that upgrade."
        )
    command.upgrade(alembic_config(connection), "head")
