"""What is left of one call's time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.core.egress.calls import Limits
from app.core.egress.errors import EgressTimeout


@dataclass(frozen=True, slots=True)
class Budget:
    """The limits of a call, and the loop's time at which it must have ended."""

    limits: Limits
    ends: float

    @classmethod
    def start(cls, limits: Limits) -> Budget:
        return cls(limits, asyncio.get_running_loop().time() + limits.total_s)

    def soon(self, seconds: float) -> float:
        """The loop's time in `seconds`, or at the end of the call if that is sooner."""
        return min(asyncio.get_running_loop().time() + seconds, self.ends)

    @asynccontextmanager
    async def within(self, seconds: float, what: str) -> AsyncIterator[None]:
        """Raises `EgressTimeout` after `seconds` or at the end of the call; `what` did not happen by then."""
        soon = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout_at(min(soon, self.ends)):
                yield
        except TimeoutError:
            if soon < self.ends:
                raise EgressTimeout(f"{what} within {seconds:g} s.") from None
            raise EgressTimeout(f"{what} before the call's {self.limits.total_s:g} s were over.") from None
