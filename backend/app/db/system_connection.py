"""One connection that always has the role `orrery_system`, for single statements that commit by themselves.

A process that is frozen between BEGIN and COMMIT holds its locks until the database loses patience; a single
statement is over when the server has executed it, whatever becomes of who sent it. It also takes one round
trip instead of three.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy import make_url

from app.db.connection import DriverConnection, in_database_terms

if TYPE_CHECKING:
    from asyncpg import Record


@dataclass(slots=True)
class SystemConnection:
    """Opened when first used, and again when it broke. `url` leads to the database, past poolers."""

    url: str
    timeout_s: float
    driver: Any = None
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def fetch(self, query: str, *args: object) -> list[Record]:
        """Executes one statement; errors are those of `DriverConnection`."""
        async with self.busy:
            try:
                if self.driver is None or self.driver.is_closed():
                    await self._open()
                return await DriverConnection(self.driver).fetch(query, *args)
            except BaseException:
                self.close()  # its state is not certain
                raise

    async def _open(self) -> None:
        url = make_url(self.url).set(drivername="postgresql").render_as_string(hide_password=False)
        connect = asyncpg.connect(url, timeout=self.timeout_s, command_timeout=self.timeout_s)
        self.driver = await in_database_terms(connect)
        await DriverConnection(self.driver).execute("SET ROLE orrery_system")

    def close(self) -> None:
        if self.driver is not None:
            self.driver.terminate()
            self.driver = None
