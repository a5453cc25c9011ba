"""`condition`: if, elif, else. The first branch whose expression is true is taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from app.agent.core.base import (
    ERROR,
    SUCCESS,
    Closed,
    Mistake,
    NodeConfig,
    NodeError,
    Outputs,
    Scope,
    expects,
    node,
)
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

    @classmethod
    def mistakes(cls, raw: Mapping[str, Any]) -> Iterator[Mistake]:
        branches = raw.get("branches")
        taken: dict[str, int] = {}
        for index, branch in enumerate(branches if isinstance(branches, list) else ()):
            handle = branch.get("handle") if isinstance(branch, dict) else None
            if not isinstance(handle, str):
                continue
            if taken.setdefault(handle, index) != index:
                yield Mistake(
                    ("branches", index, "handle"),
                    f"the handle {handle!r} is that of branch {taken[handle]} already",
                    "give it another one, or join their expressions by 'or'",
                )

    def handles(self) -> tuple[str, ...]:
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
