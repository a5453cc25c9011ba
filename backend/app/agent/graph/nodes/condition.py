"""`condition`: if, elif, else. The first branch whose expression is true is taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from app.agent.core.base import Closed, Mistake, NodeConfig, NodeError, Outputs, expects, node
from app.agent.core.scope import Scope
from app.agent.core.value_types import kind_of
from app.agent.graph.expressions import Expression
from app.agent.graph.named_ways import ELSE, Handle, repeated


class Branch(Closed):
    """One way out, taken when `when` is true.

    `when` must give true or false: a number, a text or nothing is an error, not a guess. Compare instead:
    `{{ inputs.n }} != 0`, `len({{ search.results }}) > 0`, `{{ x.y ?? null }} is not None`.
    """

    handle: Handle
    when: Annotated[Expression, expects(bool)]


class ConditionConfig(NodeConfig):
    """Leaves by the handle of the first branch whose expression is true, or else by `else`."""

    type: ClassVar[str] = "condition"
    example: ClassVar[dict[str, Any]] = {
        "branches": [
            {"handle": "long", "when": "len({{ inputs.question }}) > 200"},
            {"handle": "german", "when": "{{ inputs.language ?? \"en\" }} == 'de'"},
        ]
    }

    branches: Annotated[list[Branch], Field(min_length=1, max_length=50)]

    @classmethod
    def mistakes(cls, raw: Mapping[str, Any]) -> Iterator[Mistake]:
        yield from repeated(
            "branches", raw.get("branches"),
            noun="branch", fix="give it another one, or join their expressions by 'or'",
        )  # fmt: skip

    def handles(self) -> tuple[str, ...]:
        """Those of its `branches`, in their order, and `else`."""
        return tuple(dict.fromkeys((*(branch.handle for branch in self.branches), ELSE)))

    def fallback(self) -> str:
        return ELSE


@node(ConditionConfig, pure=True, outputs={"branch": str})
async def condition(config: ConditionConfig, scope: Scope) -> Outputs:
    """Expressions after the taken branch are not evaluated. Raises `NodeError` (`not_boolean`)."""
    for branch in config.branches:
        value = await branch.when.value(scope, scope.expressions)
        if not isinstance(value, bool):
            raise NodeError(
                f"the expression of branch {branch.handle!r} gives {kind_of(value)}, not true or false: "
                f"compare it with something ({branch.when})",
                code="not_boolean",
            )
        if value:
            scope.take(branch.handle)
            return {"branch": branch.handle}
    scope.take(ELSE)
    return {"branch": ELSE}
