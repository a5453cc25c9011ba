"""What an API process holds: memory, files, connections of its clients, to its model and to its database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil

from tests.trust.orphans import fetch
from tests.trust.runs.rows import until
from tests.trust.serving import Platform

_BUSY = "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND pid <> pg_backend_pid()"
_OPEN = "SELECT count(*) FROM agent_runs WHERE finished_at IS NULL"
_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class Footprint:
    """`files` are open descriptors but for connections; `busy` are connections in a transaction."""

    memory: int
    files: int
    clients: int
    database: int
    busy: int


async def footprint(platform: Platform) -> Footprint:
    process = _process(platform)
    api, database = (urlsplit(platform.services()[name]).port for name in ("api_url", "database_url"))
    connections = process.net_connections("tcp")
    ((busy,),) = await fetch(platform, _BUSY)
    return Footprint(
        memory=process.memory_info().rss,
        files=process.num_fds() - len(connections),
        clients=sum(found.laddr.port == api and bool(found.raddr) for found in connections),
        database=sum(bool(found.raddr) and found.raddr.port == database for found in connections),
        busy=busy,
    )


async def settled(platform: Platform) -> Footprint:
    """What it holds when no run is open, no client is connected and no transaction is under way."""

    async def calm() -> Footprint | None:
        held = await footprint(platform)
        ((runs,),) = await fetch(platform, _OPEN)
        return None if runs or held.clients or held.busy else held

    return await until(calm, within_s=120, every_s=0.2)


@dataclass(slots=True)
class Peak:
    """The most memory that was held at once, in bytes."""

    memory: int = 0


@asynccontextmanager
async def peak(platform: Platform) -> AsyncIterator[Peak]:
    """Watches the process for the length of the block."""
    most, process = Peak(), _process(platform)

    async def watch() -> None:
        while True:
            most.memory = max(most.memory, process.memory_info().rss)
            await asyncio.sleep(_EVERY_S)

    task = asyncio.create_task(watch())
    try:
        yield most
    finally:
        task.cancel()


def _process(platform: Platform) -> psutil.Process:
    assert platform.process
    return psutil.Process(platform.process.pid)
