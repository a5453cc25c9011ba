"""Chat models that answer at once: one counts its calls, one fails at first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from app.agent.core.interfaces import (
    Capability,
    ChatEvent,
    ChatRequest,
    Finished,
    ModelError,
    TextDelta,
    Usage,
)
from app.resources import Resources
from tests.factories import Gate


@dataclass(slots=True)
class Counting:
    """Its answers name the number of the call."""

    name: str = "counting"
    capabilities: frozenset[Capability] = frozenset({Capability.STREAMING})
    calls: list[ChatRequest] = field(default_factory=list)

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatEvent]:
        self.calls.append(request)
        yield TextDelta(f"call {len(self.calls)}")
        yield Finished(usage=Usage(2, 3))


@dataclass(slots=True)
class Flaky:
    """A chat model whose first call fails, once it may."""

    name: str = "flaky"
    capabilities: frozenset[Capability] = frozenset({Capability.STREAMING})
    failing: asyncio.Event = field(default_factory=asyncio.Event)
    calls: int = 0

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatEvent]:
        self.calls += 1
        if self.calls == 1:
            await self.failing.wait()
            raise ModelError("server_error", "down")
        yield TextDelta("Hello.")
        yield Finished()


def counting_behind(resources: Resources, gate: Gate) -> Counting:
    """The model `counting` of the gate's provider."""
    model = Counting()
    behind = resources.providers[gate.slug]
    resources.providers[gate.slug] = lambda name: model if name == "counting" else behind(name)
    return model
