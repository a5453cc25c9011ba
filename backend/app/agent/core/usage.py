"""What calls of models use: tokens, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any

from pydantic import Field


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the model counts them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost: Annotated[Mapping[str, Decimal], Field(exclude=True)] = field(default_factory=dict)
    """By currency; nothing where no price is known. Not handed on to other nodes: prices change, and what a
    graph does should not."""

    def __add__(self, other: Usage) -> Usage:
        cost = dict(self.cost)
        for currency, amount in other.cost.items():
            cost[currency] = cost.get(currency, Decimal(0)) + amount
        return Usage(self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens, cost)

    def told(self) -> dict[str, Any]:
        """As JSON; amounts are text, so that none of their digits is lost."""
        tokens = {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens}
        cost = {currency: f"{amount.normalize():f}" for currency, amount in self.cost.items()}
        return {**tokens, "cost": cost} if cost else tokens

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Usage:
        """What `told` gave."""
        cost = {currency: Decimal(amount) for currency, amount in told.get("cost", {}).items()}
        return cls(told["input_tokens"], told["output_tokens"], cost)
