"""What can change between two agent documents: each change typed, and told in one line for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from app.agent.core.base import SUCCESS, Closed
from app.agent.graph.edits import Added, Edit, Removed

_SHOWN_EDITS = 3
_SHOWN_TEXT = 48


class NodeAdded(Closed):
    """`index` is its place among all nodes of the new document."""

    kind: Literal["node_added"] = "node_added"
    id: str
    index: int
    node: dict[str, JsonValue]
    summary: str = Field(default_factory=lambda made: f"+ node {_node(made['node'])}")


class NodeRemoved(Closed):
    kind: Literal["node_removed"] = "node_removed"
    id: str
    node: dict[str, JsonValue]
    summary: str = Field(default_factory=lambda made: f"- node {_node(made['node'])}")


class NodeChanged(Closed):
    """Pointers of the edits begin at the node: `/config/top_k`, `/retry/max_attempts`."""

    kind: Literal["node_changed"] = "node_changed"
    id: str
    edits: list[Edit]
    summary: str = Field(default_factory=lambda made: f"~ node {made['id']}: {_told(made['edits'])}")


class EdgeAdded(Closed):
    """`index` is its place among all edges of the new document."""

    kind: Literal["edge_added"] = "edge_added"
    index: int
    edge: dict[str, JsonValue]
    summary: str = Field(default_factory=lambda made: f"+ edge {_edge(made['edge'])}")


class EdgeRemoved(Closed):
    kind: Literal["edge_removed"] = "edge_removed"
    edge: dict[str, JsonValue]
    summary: str = Field(default_factory=lambda made: f"- edge {_edge(made['edge'])}")


class Reordered(Closed):
    """What both documents have stands in another order, in which findings are told and nothing else.

    `order` names those items by their places in the old document, counted without what was removed.
    """

    kind: Literal["reordered"] = "reordered"
    section: Literal["nodes", "edges"]
    order: list[int]
    summary: str = Field(default_factory=lambda made: f"~ {made['section']} in another order")


class SectionChanged(Closed):
    """Any other part: `inputs`, `interface`, `state`, `bindings`, `durability`, … Pointers begin at the
    document. `nodes` and `edges` are told so where one of the documents is too unfinished to tell more.
    """

    kind: Literal["section_changed"] = "section_changed"
    section: str
    edits: list[Edit]
    summary: str = Field(default_factory=lambda made: f"~ {_told(made['edits'])}")


Change = Annotated[
    NodeAdded | NodeRemoved | NodeChanged | EdgeAdded | EdgeRemoved | Reordered | SectionChanged,
    Field(discriminator="kind"),
]


class GraphDiff(Closed):
    """What makes one document of another. `layout`, which never changes what an agent does, is apart."""

    changes: list[Change] = Field(default_factory=list)
    layout: list[Edit] = Field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not self.changes and not self.layout

    def lines(self) -> list[str]:
        """One line per change."""
        moved = [f"~ layout: {_told(self.layout)}"] if self.layout else []
        return [change.summary for change in self.changes] + moved


def _node(node: dict[str, Any]) -> str:
    return f"{node.get('id')} ({node.get('type')})"


def _edge(edge: dict[str, Any]) -> str:
    handle = edge.get("handle", SUCCESS)
    way_out = "" if handle == SUCCESS else f".{handle}"
    return f"{edge.get('source')}{way_out} → {edge.get('target')}"


def _told(edits: Sequence[Edit]) -> str:
    shown = ", ".join(map(_edit, edits[:_SHOWN_EDITS]))
    more = len(edits) - _SHOWN_EDITS
    return f"{shown} and {more} more" if more > 0 else shown


def _edit(edit: Edit) -> str:
    place = edit.pointer.removeprefix("/") or "all"
    if isinstance(edit, Added):
        return f"{place} added: {_short(edit.value)}"
    if isinstance(edit, Removed):
        return f"{place} removed: {_short(edit.value)}"
    return f"{place} {_short(edit.before)} → {_short(edit.after)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_TEXT else text[: _SHOWN_TEXT - 1] + "…"
