"""A model with prices is the model that it is, and says what each call costs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import cast

import pytest

from app.agent.core.interfaces import (
    Capability,
    ChatEvent,
    ChatModel,
    ChatRequest,
    Finished,
    TextDelta,
    Usage,
)
from app.agent.graph.ports import total, usage_told
from app.api.schemas.models import Prices
from app.rag.providers.model.minilm import MiniLM
from app.services.llm.extractive import Extractive
from app.services.llm.priced import PricedModel
from tests.services.llm.chat_model_conformance import ChatModelConformance, collect, request

PRICES = Prices(input_per_million="0.000001", output_per_million="999999.999999", currency="USD")


@dataclass
class Fixed:
    """Answers one word and uses so many tokens; remembers that it was closed."""

    usage: Usage
    name: str = "fixed"
    capabilities: frozenset[Capability] = frozenset()
    closed: list[bool] = field(default_factory=list)

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatEvent]:
        try:
            yield TextDelta("Yes")
            yield Finished(usage=self.usage)
        finally:
            self.closed.append(True)


async def cost(model: ChatModel) -> dict[str, Decimal]:
    finished = (await collect(model, request("Well?")))[-1]
    assert isinstance(finished, Finished)
    return dict(finished.usage.cost)


class TestPricedModel(ChatModelConformance):
    @pytest.fixture
    def model(self, embedder: MiniLM) -> ChatModel:
        return PricedModel(Extractive(embedder), PRICES)

    async def test_keeps_every_digit(self) -> None:
        priced = PricedModel(Fixed(Usage(1, 1_000_000)), PRICES)
        assert await cost(priced) == {"USD": Decimal("999999.999999000001")}

    async def test_knows_no_cost_of_tokens_that_are_not_told(self) -> None:
        assert await cost(PricedModel(Fixed(Usage()), PRICES)) == {}

    async def test_closes_the_call_with_its_stream(self) -> None:
        fixed = Fixed(Usage(1, 1))
        stream = cast(AsyncGenerator[ChatEvent], PricedModel(fixed, PRICES).stream(request("Well?")))
        await anext(stream)
        await stream.aclose()
        assert fixed.closed == [True]


def used(amount: str, currency: str = "USD", *, tokens: int = 1) -> Usage:
    return Usage(tokens, 0, {currency: Decimal(amount)})


class TestSums:
    def test_do_not_drift(self) -> None:
        parts: Sequence[Usage] = [used("0.1")] * 1000
        assert sum(parts, Usage()) == Usage(1000, 0, {"USD": Decimal(100)})

    def test_keep_currencies_apart(self) -> None:
        told = total({"a": used("1.50"), "b": used("2", "EUR"), "c": used("0.5")}).told()
        assert told["cost"] == {"USD": "2", "EUR": "2"}

    def test_name_the_models_that_are_not_in_them(self) -> None:
        told = usage_told({"a": used("1E-7"), "b": Usage(5, 5), "c": Usage()})
        assert (told["cost"], told["unpriced"]) == ({"USD": "0.0000001"}, ["b"])
        assert told["by_model"]["b"] == {"input_tokens": 5, "output_tokens": 5}

    def test_of_nothing_but_unknown_costs_are_none(self) -> None:
        told = usage_told({"b": Usage(5, 5)})
        assert told.keys() == {"input_tokens", "output_tokens", "by_model"}

    @pytest.mark.parametrize(
        "usage", [Usage(3, 2), used("0.00090025"), used("0"), used("1", "EUR") + used("2")]
    )
    def test_are_read_back_from_the_journal(self, usage: Usage) -> None:
        assert Usage.read(usage.told()) == usage

    def test_of_journals_without_costs_are_read(self) -> None:
        assert Usage.read({"input_tokens": 3, "output_tokens": 2}) == Usage(3, 2)
