"""Every table there is against every kind of statement, as somebody of another organization.

The tables come from the database's own catalogue, partitions too: a table that a later migration adds is
held against all of this without a line here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from app.core.ids import new_id
from app.embedded import Services
from tests.db.catalog import Table, owner, plant, sample, tables

DENIED = "permission denied"
WALLED = "row-level security"

READS = {
    "select": "SELECT org_id FROM {table} WHERE org_id = {theirs}",
    "select for update": "SELECT org_id FROM {table} WHERE org_id = {theirs} FOR UPDATE",
    "select through a join": "SELECT t.org_id FROM {table} t JOIN {table} u USING (org_id)"
    " WHERE org_id = {theirs}",
    "select in disguise": "SELECT 1 WHERE EXISTS (SELECT FROM {table} WHERE org_id = {theirs})",
    "update": "UPDATE {table} SET org_id = org_id WHERE org_id = {theirs} RETURNING 1",
    "take over": "UPDATE {table} SET org_id = {mine} WHERE org_id = {theirs} RETURNING 1",
    "delete": "DELETE FROM {table} WHERE org_id = {theirs} RETURNING 1",
    "merge": "MERGE INTO {table} t USING (SELECT {theirs} AS org_id) s ON t.org_id = s.org_id"
    " WHEN MATCHED THEN DELETE RETURNING 1",
}
"""Statements that must find nothing of theirs."""

WRITES = {
    "insert": "INSERT INTO {table} ({columns}) VALUES ({fresh})",
    "give away": "UPDATE {table} SET org_id = {theirs} WHERE org_id = {mine}",
    "insert over": "INSERT INTO {table} ({columns}) VALUES ({known}) ON CONFLICT DO NOTHING",
    "upsert": "INSERT INTO {table} ({columns}) VALUES ({known})"
    " ON CONFLICT ({key}) DO UPDATE SET org_id = excluded.org_id",
}
"""Statements that must fail."""

WHOLE = ("TRUNCATE {table}", "ALTER TABLE {table} DISABLE ROW LEVEL SECURITY", "DROP TABLE {table}")

_KEY = """
    SELECT string_agg('"' || attname || '"', ', ' ORDER BY ordinality)
    FROM pg_constraint, unnest(conkey) WITH ORDINALITY AS k(attnum, ordinality)
    JOIN pg_attribute a USING (attnum)
    WHERE conrelid = $1 AND contype = 'p' AND a.attrelid = conrelid
"""


class Foreign:
    """A row of one organization in a table, and the application's role at work for another."""

    def __init__(self, connection: asyncpg.Connection[Any], table: Table) -> None:
        self.connection = connection
        self.parts = {"table": table.name}

    async def run(self, statement: str) -> list[Any]:
        async with self.connection.transaction():
            return list(await self.connection.fetch(statement.format_map(self.parts)))

    async def finds(self, statement: str) -> bool:
        """Whether a statement meets rows; one that fails on what it met has met some."""
        try:
            return bool(await self.run(statement))
        except (asyncpg.InsufficientPrivilegeError, asyncpg.IntegrityConstraintViolationError):
            return True

    async def refusal(self, statement: str) -> str:
        """Why a statement failed; "" where it did not."""
        try:
            await self.run(statement)
        except asyncpg.PostgresError as error:
            return str(error)
        return ""


@asynccontextmanager
async def foreign(connection: asyncpg.Connection[Any], table: Table) -> AsyncIterator[Foreign]:
    """Plants a row for each of two organizations, and becomes the application for one of them."""
    mine, theirs = new_id(), new_id()
    savepoint = connection.transaction()
    await savepoint.start()
    found = Foreign(connection, table)
    found.parts |= {"mine": f"'{mine}'::uuid", "theirs": f"'{theirs}'::uuid"}
    if not table.is_partition:
        known, fresh = [await sample(connection, table, theirs) for _ in range(2)]
        await plant(connection, table, known)
        await plant(connection, table, await sample(connection, table, mine))
        found.parts |= {
            "columns": ", ".join(f'"{name}"' for name in known),
            "known": ", ".join(known.values()),
            "fresh": ", ".join(fresh.values()),
            "key": str(await connection.fetchval(_KEY, table.oid)),
        }
    await connection.execute("SET LOCAL ROLE orrery_app")
    await connection.execute("SELECT set_config('app.org', $1, true)", str(mine))
    try:
        yield found
    finally:
        await savepoint.rollback()


async def roots(connection: asyncpg.Connection[Any]) -> list[Table]:
    found = [t for t in await tables(connection) if t.of_tenants and not t.is_partition]
    assert len(found) > 15
    return found


async def readable(connection: asyncpg.Connection[Any]) -> list[str]:
    """Where a statement of somebody else finds a tenant's row."""
    leaks = []
    for table in await roots(connection):
        async with foreign(connection, table) as somebody:
            own = await somebody.run("SELECT org_id FROM {table} WHERE org_id = {mine}")
            assert len(own) == 1, f"{table.name} hides a tenant's own row"
            leaks += [f"{table.name}: {name}" for name in READS if await somebody.finds(READS[name])]
            await connection.execute("SELECT set_config('app.org', '', true)")
            if await somebody.run("SELECT org_id FROM {table}"):
                leaks.append(f"{table.name}: without an organization")
    return leaks


async def writable(connection: asyncpg.Connection[Any]) -> list[str]:
    """Where a statement of somebody else makes or overwrites a tenant's row."""
    leaks = []
    for table in await roots(connection):
        async with foreign(connection, table) as somebody:
            for name, statement in WRITES.items():
                if WALLED not in (refusal := await somebody.refusal(statement)):
                    leaks.append(f"{table.name}: {name} {refusal}".strip())
    return leaks


async def open_partitions(connection: asyncpg.Connection[Any]) -> list[str]:
    """Partitions that can be named directly, which no row-level security of their parent covers."""
    leaks = []
    partitions = [table for table in await tables(connection) if table.is_partition]
    assert {table.root for table in partitions} >= {"agent_run_events", "agent_run_steps", "vector_entries"}
    for table in partitions:
        async with foreign(connection, table) as somebody:
            for role in ("orrery_app", "orrery_system"):
                await connection.execute("RESET ROLE")
                await connection.execute(f"SET LOCAL ROLE {role}")
                for name in ("select", "update", "delete", "merge"):
                    if DENIED not in (refusal := await somebody.refusal(READS[name])):
                        leaks.append(f"{table.name}: {name} as {role} {refusal}".strip())
    return leaks


class TestForeignRows:
    async def test_are_found_by_no_statement(self, services: Services) -> None:
        async with owner(services) as connection:
            assert await readable(connection) == []

    async def test_cannot_be_made_or_overwritten(self, services: Services) -> None:
        async with owner(services) as connection:
            assert await writable(connection) == []

    async def test_cannot_be_reached_through_a_partition(self, services: Services) -> None:
        async with owner(services) as connection:
            assert await open_partitions(connection) == []


class TestBreaches:
    """Walls torn down on purpose: these checks would tell."""

    @pytest.mark.parametrize(
        "breach",
        [
            "ALTER TABLE documents DISABLE ROW LEVEL SECURITY",
            "CREATE POLICY mistake ON documents TO orrery_app USING (true)",
            "ALTER POLICY own_rows ON documents USING (true)",
            "GRANT SELECT ON documents TO orrery_system; ALTER ROLE orrery_app INHERIT;"
            "GRANT orrery_system TO orrery_app WITH INHERIT TRUE;"
            "CREATE POLICY mistake ON documents TO orrery_system USING (true)",
            "CREATE TABLE documents_again (org_id uuid, id uuid, PRIMARY KEY (org_id, id));"
            "GRANT SELECT, UPDATE, DELETE ON documents_again TO orrery_app",
        ],
    )
    async def test_that_let_others_read_are_found(self, services: Services, breach: str) -> None:
        async with owner(services) as connection:
            await connection.execute(breach)
            assert any(leak.startswith("documents") for leak in await readable(connection))

    @pytest.mark.parametrize(
        "breach",
        [
            "ALTER TABLE jobs DISABLE ROW LEVEL SECURITY",
            "ALTER POLICY own_rows ON jobs WITH CHECK (true)",
        ],
    )
    async def test_that_let_others_write_are_found(self, services: Services, breach: str) -> None:
        async with owner(services) as connection:
            await connection.execute(breach)
            assert "jobs: insert" in await writable(connection)

    async def test_in_a_partition_are_found(self, services: Services) -> None:
        async with owner(services) as connection:
            await connection.execute("GRANT SELECT ON vector_entries_default TO orrery_app")
            assert "vector_entries_default: select as orrery_app" in await open_partitions(connection)


class TestTables:
    async def test_cannot_be_emptied_opened_or_dropped_by_the_application(self, services: Services) -> None:
        passed = []
        async with owner(services) as connection:
            found = await tables(connection)
            for role in ("orrery_app", "orrery_system"):
                await connection.execute(f"SET LOCAL ROLE {role}")
                for table in found:
                    somebody = Foreign(connection, table)
                    for statement in WHOLE:
                        refusal = await somebody.refusal(statement)
                        if not (DENIED in refusal or "must be owner" in refusal):
                            passed.append((role, statement.format(table=table.name), refusal))
                await connection.execute("RESET ROLE")
        assert passed == []

    async def test_without_an_organization_are_closed_to_the_application(self, services: Services) -> None:
        query = "SELECT has_table_privilege('orrery_app', $1::oid, 'SELECT, INSERT, UPDATE, DELETE')"
        async with owner(services) as connection:
            found = [table for table in await tables(connection) if not table.of_tenants]
            open_ = [table.name for table in found if await connection.fetchval(query, table.oid)]
        assert {"users", "organizations"} <= {table.name for table in found}
        assert open_ == []

    async def test_have_no_key_that_tells_of_other_organizations(self, services: Services) -> None:
        """A unique constraint without the organization says by its error that a foreign row is there."""
        query = """
            SELECT c.relname || ': ' || indexrelid::regclass
            FROM pg_index JOIN pg_class c ON c.oid = indrelid
            WHERE c.relnamespace = 'public'::regnamespace AND indisunique AND EXISTS
                (SELECT FROM pg_attribute WHERE attrelid = indrelid AND attname = 'org_id')
              AND NOT EXISTS (SELECT FROM pg_attribute
                WHERE attrelid = indrelid AND attname = 'org_id' AND attnum = ANY (indkey))
        """
        async with owner(services) as connection:
            found = {row[0] for row in await connection.fetch(query)}
        assert found == GLOBAL_KEYS

    async def test_refer_to_each_other_within_an_organization_only(self, services: Services) -> None:
        """A foreign key without the organization would follow an id into another one."""
        query = """
            SELECT conrelid::regclass || ' → ' || confrelid::regclass FROM pg_constraint
            WHERE contype = 'f' AND connamespace = 'public'::regnamespace
              AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = confrelid AND attname = 'org_id')
              AND NOT EXISTS (SELECT FROM unnest(conkey, confkey) AS k(near, far)
                JOIN pg_attribute a ON a.attrelid = conrelid AND a.attnum = near AND a.attname = 'org_id'
                JOIN pg_attribute b ON b.attrelid = confrelid AND b.attnum = far AND b.attname = 'org_id')
        """
        async with owner(services) as connection:
            assert [row[0] for row in await connection.fetch(query)] == []


class TestFunctions:
    async def test_with_the_rights_of_the_owner_are_few_and_pinned(self, services: Services) -> None:
        query = """
            SELECT proname, coalesce(array_to_string(proconfig, ','), '') AS settings,
                   has_function_privilege('public', oid, 'EXECUTE') AS for_everybody
            FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef
        """
        async with owner(services) as connection:
            found = await connection.fetch(query)
        assert {row["proname"] for row in found} == DEFINER_FUNCTIONS
        assert all("search_path=" in row["settings"] and not row["for_everybody"] for row in found)


GLOBAL_KEYS = {"api_keys: uq_api_keys_digest"}
"""Unique across organizations: digests that only who has the secret can make."""

DEFINER_FUNCTIONS = {"orrery_ensure_partitions", "orrery_logged_months", "orrery_drop_log"}
