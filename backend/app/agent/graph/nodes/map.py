"""`map`: a graph for each item of a list, side by side."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from app.agent.core.base import Closed, InnerGraph, NodeConfig, NodeError, Outputs, expects, node
from app.agent.core.scope import Scope
from app.agent.core.value_types import ANY, ValueType, kind_of, of_schema, of_value, union
from app.agent.graph.json_template import JsonTemplate
from app.agent.graph.limits import exceeds, too_much
from app.agent.graph.references import MAX_RENDERED, RenderedTooLarge, Template
from app.core.errors import AppError

MOST_ITEMS = 10_000
_PLACE = {"index": {"type": "integer"}, "count": {"type": "integer"}}


class ItemError(Closed):
    """Why an item has no result; `index` counts from 0."""

    index: int
    code: str
    message: str


class MapConfig(NodeConfig):
    """Runs a graph for each item of a list, at most `concurrency` at once, and collects what they return.

    Inside, `item` is the item, `loop.index` its place from 0 and `loop.count` how many there are; all else
    that is needed is handed in by `inputs`. `results` has the output of each item's `end`, in the order of
    `items`.

    If an item fails, the node fails and the others are cancelled; with `"on_item_error": "collect"` they go
    on: then its result is null, and `errors` has its `index`, `code` and `message`.
    """

    type: ClassVar[str] = "map"
    inside: ClassVar[Mapping[str, ValueType]] = {
        "item": ANY,
        "loop": of_schema({"type": "object", "properties": _PLACE, "required": list(_PLACE)}),
    }

    example: ClassVar[dict[str, Any]] = {
        "items": "{{ inputs.names }}",
        "graph": {
            "nodes": [
                {"id": "start", "type": "start"},
                {"id": "greet", "type": "template", "config": {"text": "Hello, {{ item }}!"}},
                {"id": "done", "type": "end", "config": {"output": {"text": "{{ greet.text }}"}}},
            ],
            "edges": [{"source": "start", "target": "greet"}, {"source": "greet", "target": "done"}],
        },
    }

    items: Annotated[Template, expects(list[Any])]
    graph: InnerGraph
    inputs: dict[str, JsonTemplate] = Field(default_factory=dict)
    concurrency: Annotated[int, Field(strict=True, ge=1, le=256)] = 8
    on_item_error: Literal["fail", "collect"] = "fail"
    max_items: Annotated[int, Field(strict=True, ge=1, le=MOST_ITEMS)] = 1000

    def gathered(self, types: Mapping[str, ValueType], inside: ValueType) -> Mapping[str, ValueType]:
        lacks = [of_value(None)] if self.on_item_error == "collect" else []
        results = ValueType(frozenset({"array"}), items=union([inside, *lacks]))
        return {**types, "results": results}


@node(MapConfig, pure=True, outputs={"results": list[dict[str, Any] | None], "errors": list[ItemError]})
async def map_(config: MapConfig, scope: Scope) -> Outputs:
    """Raises `NodeError` for what is no list, or too long a one, and for the first item that failed."""
    items = _items(config, scope)
    inputs = {name: value.value(scope) for name, value in config.inputs.items()}

    def inside(index: int) -> Awaitable[Mapping[str, Any]]:
        place = {"index": index, "count": len(items)}
        return scope.inside(str(index), inputs, item=items[index], loop=place)

    def ends(index: int, error: BaseException) -> BaseException | None:
        goes_on = config.on_item_error == "collect" and _is_the_items(error)
        return None if goes_on else _told(index, error)

    works = [partial(inside, index) for index in range(len(items))]
    found = await scope.side_by_side(works, places=config.concurrency, ends=ends)
    errors = {index: one for index, one in enumerate(found) if isinstance(one, BaseException)}
    results = [None if index in errors else one for index, one in enumerate(found)]
    if exceeds(results, max_text=MAX_RENDERED, max_values=MOST_ITEMS * 100):
        raise RenderedTooLarge(f"the results come to more than {too_much(MAX_RENDERED, MOST_ITEMS * 100)}")
    return {"results": results, "errors": [_item_error(index, error) for index, error in errors.items()]}


def _items(config: MapConfig, scope: Scope) -> list[Any]:
    items = config.items.value(scope)
    if not isinstance(items, list):
        message = f"'items' {config.items} takes a list, not {kind_of(items)}"
        raise NodeError(message, code="bad_request")
    most = min(config.max_items, scope.limits.map_items)
    if len(items) > most:
        raise NodeError(f"{len(items)} items; at most {most} are allowed (max_items)", code="too_large")
    return items


def _is_the_items(error: BaseException) -> bool:
    return isinstance(error, AppError) and error.code != "undeliverable"


def _told(index: int, error: BaseException) -> BaseException:
    if not isinstance(error, AppError) or not _is_the_items(error):
        return error
    told = NodeError(f"item {index}: {error.detail}", code=error.code)
    told.__cause__ = error
    return told


def _item_error(index: int, error: BaseException) -> ItemError:
    detail = error.detail if isinstance(error, AppError) else str(error)
    return ItemError(index=index, code=getattr(error, "code", "internal_error"), message=detail)
