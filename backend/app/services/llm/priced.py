"""What calls of a model cost."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, replace

from app.agent.core.interfaces import Capability, ChatEvent, ChatModel, ChatRequest, Finished, Usage
from app.api.schemas.models import Prices

_MILLION = 6
"""Its zeros: prices have few digits, so that the cost of a call is exact."""


@dataclass(frozen=True, slots=True)
class PricedModel:
    """A `ChatModel` that says what each call cost. Where its server tells no tokens, that is not known."""

    model: ChatModel
    prices: Prices

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self.model.capabilities

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatEvent]:
        events = self.model.stream(request)
        try:
            async for event in events:
                yield (
                    replace(event, usage=self._priced(event.usage)) if isinstance(event, Finished) else event
                )
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()

    def _priced(self, used: Usage) -> Usage:
        if used == Usage():
            return used
        prices = self.prices
        amount = used.input_tokens * prices.input_per_million + used.output_tokens * prices.output_per_million
        return replace(used, cost={prices.currency: amount.scaleb(-_MILLION)})
