"""What the database itself says it holds, so that a new table falls under every test by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg

from app.core.ids import new_id
from app.embedded import Services

_TABLES = """
    SELECT c.oid::int AS oid, c.relname AS name, c.relispartition AS is_partition,
           coalesce(parent.relname, c.relname) AS root,
           EXISTS (SELECT FROM pg_attribute a
                   WHERE a.attrelid = c.oid AND a.attname = 'org_id' AND NOT a.attisdropped) AS of_tenants
    FROM pg_class c
    LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
    LEFT JOIN pg_class parent ON parent.oid = i.inhparent
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
      AND c.relname <> 'alembic_version'
    ORDER BY c.relname
"""
_COLUMNS = """
    SELECT attname AS name, format_type(atttypid, NULL) AS type,
           attnotnull AND NOT atthasdef AS required, attgenerated <> '' AS generated
    FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""


@dataclass(frozen=True, slots=True)
class Table:
    """A table or partition. `root` is the table that requests name, `of_tenants` that it has an `org_id`."""

    oid: int
    name: str
    root: str
    is_partition: bool
    of_tenants: bool


async def tables(connection: asyncpg.Connection[Any]) -> list[Table]:
    return [
        Table(row["oid"], row["name"], row["root"], row["is_partition"], row["of_tenants"])
        for row in await connection.fetch(_TABLES)
    ]


@asynccontextmanager
async def owner(services: Services) -> AsyncIterator[asyncpg.Connection[Any]]:
    """The owner of the schema in a transaction that is rolled back, without foreign keys."""
    connection = await asyncpg.connect(services.migration_url)
    try:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SET LOCAL session_replication_role = replica")
        yield connection
        await transaction.rollback()
    finally:
        await connection.close()


async def sample(connection: asyncpg.Connection[Any], table: Table, org_id: UUID) -> dict[str, str]:
    """A row of `org_id` as literals by column, made of the types of the columns."""
    row = {"org_id": f"'{org_id}'::uuid"} if table.of_tenants else {}
    for column in await connection.fetch(_COLUMNS, table.oid):
        if column["required"] and not column["generated"] and column["name"] not in row:
            row[column["name"]] = _literal(column["type"])
    return row


async def plant(connection: asyncpg.Connection[Any], table: Table, row: dict[str, str]) -> None:
    names = ", ".join(f'"{name}"' for name in row)
    await connection.execute(f"INSERT INTO {table.name} ({names}) VALUES ({', '.join(row.values())})")


def _literal(kind: str) -> str:
    """Some value of a type, another one each time where it may be part of a key."""
    fresh = new_id()
    if kind.endswith("[]"):
        return f"'{{}}'::{kind}"
    return {
        "uuid": f"'{fresh}'::uuid",
        "text": f"'{fresh.hex}'",
        "character varying": f"'{fresh.hex[:12]}'",
        "bytea": f"'\\x{fresh.hex}'::bytea",
        "json": "'{}'::json",
        "jsonb": "'{}'::jsonb",
        "boolean": "true",
        "integer": "1",
        "smallint": "1",
        "bigint": "1",
        "double precision": "1",
        "numeric": "1",
        "inet": "'192.0.2.1'::inet",
        "timestamp with time zone": "now()",
        "vector": "'[1,2,3]'::vector",
        "sparsevec": "'{1:1}/1000000000'::sparsevec",
    }[kind]
