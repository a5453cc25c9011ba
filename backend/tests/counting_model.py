"""A chat model that answers at once and counts its calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from app.agent.core.interfaces import Capability, ChatEvent, ChatRequest, Finished, TextDelta, Usage
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


def counting_behind(resources: Resources, gate: Gate) -> Counting:
    """The model `counting` of the gate's provider."""
    model = Counting()
    behind = resources.providers[gate.slug]
    resources.providers[gate.slug] = lambda name: model if name == "counting" else behind(name)
    return model
