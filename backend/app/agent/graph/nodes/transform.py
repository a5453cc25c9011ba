"""`transform`: values worked out of other values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from app.agent.core.base import ERROR, Mistake, NodeConfig, Outputs, node
from app.agent.core.scope import Scope
from app.agent.core.value_types import ValueType
from app.agent.graph.checks.expressions import type_of
from app.agent.graph.expressions import Expression
from app.agent.graph.limits import exceeds, too_much
from app.agent.graph.policies import Name
from app.agent.graph.references import MAX_RENDERED, RenderedTooLarge


class TransformConfig(NodeConfig):
    """Gives the value of each expression as the output of that name.

    Expressions do not see one another's values.
    """

    type: ClassVar[str] = "transform"
    example: ClassVar[dict[str, Any]] = {
        "values": {
            "words": "{{ inputs.question }}.lower().split()",
            "long": "len({{ inputs.question }}) > 200",
        }
    }

    values: Annotated[dict[Name, Expression], Field(min_length=1, max_length=50)]

    @classmethod
    def mistakes(cls, raw: Mapping[str, Any]) -> Iterator[Mistake]:
        values = raw.get("values")
        if isinstance(values, dict) and ERROR in values:
            message = "the name 'error' is that of what a failed node hands on"
            yield Mistake(("values", ERROR), message, "choose another one")

    def given(self, types: Mapping[str, ValueType]) -> Mapping[str, ValueType]:
        return {name: type_of(expression.tree, {}) for name, expression in self.values.items()}


@node(TransformConfig, pure=True, outputs={})
async def transform(config: TransformConfig, scope: Scope) -> Outputs:
    """Raises what the expressions raise, and `RenderedTooLarge`."""
    outputs = {
        name: await expression.value(scope, scope.expressions) for name, expression in config.values.items()
    }
    if exceeds(outputs, max_text=MAX_RENDERED):
        raise RenderedTooLarge(f"the outputs come to more than {too_much(MAX_RENDERED)}")
    return outputs
