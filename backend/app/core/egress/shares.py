"""How much of something one organization may use at a time: its slow calls leave the rest to the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from app.core.egress.errors import EgressBusy

_SETTING = "ORRERY_EGRESS_MAX_CONNECTIONS_PER_ORGANIZATION"


@dataclass(slots=True)
class _Share:
    """`users` hold a place or wait for one."""

    places: asyncio.Semaphore
    users: int = 0


class Shares:
    """`each` places per organization, given to those who wait in the order in which they came."""

    def __init__(self, each: int) -> None:
        self._each = each
        self._used: dict[UUID, _Share] = {}

    @asynccontextmanager
    async def place(self, org_id: UUID, *, until: float | None) -> AsyncIterator[None]:
        """Held while it is used. `EgressBusy` where none is free by the loop's time `until` (None: waits)."""
        share = self._used.setdefault(org_id, _Share(asyncio.Semaphore(self._each)))
        share.users += 1
        try:
            await self._take(share, until)
            try:
                yield
            finally:
                share.places.release()
        finally:
            share.users -= 1
            if not share.users:
                del self._used[org_id]

    async def _take(self, share: _Share, until: float | None) -> None:
        try:
            async with asyncio.timeout_at(until):
                await share.places.acquire()
        except TimeoutError:
            raise EgressBusy(
                f"The organization's outgoing calls use all of its {self._each} connections ({_SETTING}); "
                "try again."
            ) from None
