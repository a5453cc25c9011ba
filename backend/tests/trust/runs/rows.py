"""What the database holds of a run, past every wall."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from tests.trust.orphans import fetch
from tests.trust.serving import Platform

T = TypeVar("T")

_TABLES = """
    SELECT c.table_name, c.column_name FROM information_schema.columns c
    JOIN information_schema.tables t USING (table_schema, table_name)
    WHERE c.table_schema = 'public' AND t.table_type = 'BASE TABLE' AND c.data_type = 'uuid'
        AND (c.column_name = 'run_id' OR (c.table_name = 'agent_runs' AND c.column_name = 'id'))
        AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = to_regclass(quote_ident(c.table_name)))
"""


async def rows_of(platform: Platform, run_id: str) -> dict[str, list[str]]:
    """Every row of the run by table, whatever tables there are: journal, events, checkpoints, commands."""
    found = {}
    for table, column in await fetch(platform, _TABLES):
        statement = f"SELECT t::text FROM {table} t WHERE {column} = $1::text::uuid ORDER BY 1"
        found[table] = [row for (row,) in await fetch(platform, statement, run_id)]
    assert {"agent_runs", "agent_run_events", "agent_run_steps"} <= set(found)
    return found


async def completed_steps(platform: Platform, run_id: str) -> list[str]:
    """Node paths that the journal says are done."""
    statement = """
        SELECT DISTINCT node_path FROM agent_run_steps
        WHERE run_id = $1::text::uuid AND status = 'succeeded'"""
    return [path for (path,) in await fetch(platform, statement, run_id)]


async def until(
    check: Callable[[], Awaitable[T | None]], *, within_s: float = 60, every_s: float = 0.05
) -> T:
    """What `check` answers as soon as it is true."""
    async with asyncio.timeout(within_s):
        while not (found := await check()):
            await asyncio.sleep(every_s)
    return found


async def run_row(platform: Platform, run_id: str, *columns: str) -> tuple[Any, ...]:
    statement = f"SELECT {', '.join(columns)} FROM agent_runs WHERE id = $1::text::uuid"
    (row,) = await fetch(platform, statement, run_id)
    return row
