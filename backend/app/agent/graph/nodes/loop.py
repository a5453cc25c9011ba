"""`loop`: a graph again and again, while an expression holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from app.agent.core.base import InnerGraph, NodeConfig, NodeError, Outputs, expects, node
from app.agent.core.scope import Scope
from app.agent.core.value_types import ANY, ValueType, kind_of, of_value, union
from app.agent.graph.expressions import Expression
from app.agent.graph.json_template import JsonTemplate

_LOOP = ValueType(frozenset({"object"}), {"index": ValueType(frozenset({"integer"})), "previous": ANY})


class LoopConfig(NodeConfig):
    """Runs a graph in rounds, as long as `repeat_while` is true, at most `max_rounds` times.

    In `repeat_while`, which is looked at before each round, and inside, `loop.index` counts the rounds from
    0, and `loop.previous` is the output of the round before, in the first one `initial`. All else that is
    needed inside is handed in by `inputs`.

    `last` is the output of the last round, `initial` if there was none; `rounds` how many there were. Where
    `repeat_while` still holds after `max_rounds`, the node fails as `loop_limit`; with `"on_limit": "stop"`
    it succeeds, and `exhausted` is true.
    """

    type: ClassVar[str] = "loop"
    inside: ClassVar[Mapping[str, ValueType]] = {"loop": _LOOP}
    aware: ClassVar[Mapping[str, frozenset[str]]] = {"repeat_while": frozenset({"loop"})}

    example: ClassVar[dict[str, Any]] = {
        "repeat_while": "{{ loop.index }} < 3",
        "initial": {"text": "Once more"},
        "graph": {
            "nodes": [
                {"id": "start", "type": "start"},
                {"id": "more", "type": "template", "config": {"text": "{{ loop.previous.text }}!"}},
                {"id": "done", "type": "end", "config": {"output": {"text": "{{ more.text }}"}}},
            ],
            "edges": [{"source": "start", "target": "more"}, {"source": "more", "target": "done"}],
        },
    }

    repeat_while: Annotated[Expression, expects(bool)]
    graph: InnerGraph
    inputs: dict[str, JsonTemplate] = Field(default_factory=dict)
    initial: JsonTemplate | None = None
    max_rounds: Annotated[int, Field(strict=True, ge=1, le=1000)] = 10
    on_limit: Literal["fail", "stop"] = "fail"

    def gathered(self, types: Mapping[str, ValueType], inside: ValueType) -> Mapping[str, ValueType]:
        """Nothing is known of `last` where there may be no round, but that there is `initial`."""
        return types if self.initial is not None else {**types, "last": union([inside, of_value(None)])}


@node(LoopConfig, pure=True, outputs={"last": Any, "rounds": int, "exhausted": bool})
async def loop(config: LoopConfig, scope: Scope) -> Outputs:
    """Raises `NodeError`: `not_boolean`, `loop_limit`, and as a round failed."""
    inputs = {name: value.value(scope) for name, value in config.inputs.items()}
    previous = config.initial.value(scope) if config.initial else None
    most = min(config.max_rounds, scope.limits.loop_rounds)
    for index in range(most):
        around = {"index": index, "previous": previous}
        if not await _holds(config, scope, around):
            return {"last": previous, "rounds": index, "exhausted": False}
        previous = await scope.inside(str(index), inputs, loop=around)
    exhausted = await _holds(config, scope, {"index": most, "previous": previous})
    if exhausted and config.on_limit == "fail":
        raise NodeError(f"'repeat_while' still holds after {most} rounds (max_rounds)", code="loop_limit")
    return {"last": previous, "rounds": most, "exhausted": exhausted}


async def _holds(config: LoopConfig, scope: Scope, around: Mapping[str, Any]) -> bool:
    value = await config.repeat_while.value(scope.reading(loop=around), scope.expressions)
    if not isinstance(value, bool):
        said = f"'repeat_while' gives {kind_of(value)}, not true or false"
        raise NodeError(f"{said}: compare it with something ({config.repeat_while})", code="not_boolean")
    return value
