"""`condition`: if, elif, else. The first branch whose expression is true is taken."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from app.agent.core.base import ERROR, SUCCESS, Closed, NodeConfig, NodeError, Outputs, Scope, expects, node
from app.agent.core.value_types import kind_of
from app.agent.graph.expressions import Expression
from app.agent.graph.policies import Name

ELSE = "else"
_RESERVED = (ELSE, SUCCESS, ERROR)


def _not_reserved(handle: str) -> str:
    if handle in _RESERVED:
        raise PydanticCustomError(
            "reserved_handle",
            "{handle} is reserved; every condition has the handle 'else', taken where no branch is",
            {"handle": repr(handle)},
        )
    return handle


class Branch(Closed):
    """One way out, taken when `when` is true.

    `when` must give true or false: a number, a text or nothing is an error, not a guess. Compare instead:
    `{{ inputs.n }} != 0`, `len({{ search.results }}) > 0`, `{{ x.y ?? null }} is not None`.
    """

    handle: Annotated[Name, AfterValidator(_not_reserved)]
    when: Annotated[Expression, expects(bool)]


class ConditionConfig(NodeConfig):
    """Leaves by the handle of the first branch whose expression is true, or else by `else`."""

    type: ClassVar[str] = "condition"

    branches: Annotated[list[Branch], Field(min_length=1, max_length=50)]

    @field_validator("branches")
    @classmethod
    def _have_different_handles(cls, branches: list[Branch]) -> list[Branch]:
        handles = [branch.handle for branch in branches]
        for index, handle in enumerate(handles):
            if handle in handles[:index]:
                raise PydanticCustomError(
                    "duplicate_handle",
                    "two branches share the handle {handle}; join their expressions by 'or'",
                    {"handle": repr(handle), "path": [index, "handle"]},
                )
        return branches

    def handles(self) -> tuple[str, ...]:
        return (*(branch.handle for branch in self.branches), ELSE)

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
