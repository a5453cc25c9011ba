"""The difference of two agent documents, told in nodes, edges and fields; applying it gives the other.

Nodes are known by their ids, edges by all that they are. The order of both is kept, because findings are
told in it; it changes nothing of what an agent does. Documents need not be finished: whatever has not the
form of nodes or edges is compared as plain JSON.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal

from app.agent.graph.changes import (
    Change,
    EdgeAdded,
    EdgeRemoved,
    GraphDiff,
    NodeAdded,
    NodeChanged,
    NodeRemoved,
    Reordered,
    SectionChanged,
)
from app.agent.graph.edits import DoesNotFit, Edit, edited, edits_between, same

Document = Mapping[str, Any]
Item = dict[str, Any]
Section = Literal["nodes", "edges"]


def compare(before: Document, after: Document) -> GraphDiff:
    """What makes `after` of `before`: two JSON objects."""
    changes: list[Change] = []
    plain = {key: key for key in (*before, *after)}
    for section, tell in (("nodes", _node_changes), ("edges", _edge_changes)):
        old, new = _keyed(before, section), _keyed(after, section)
        if old is not None and new is not None:
            changes += tell(old, new)
            del plain[section]
    edits = edits_between(_only(before, plain), _only(after, plain))
    layout: list[Edit] = []
    for name, found in groupby(edits, _section_of):
        if name == "layout":
            layout = list(found)
        else:
            changes.append(SectionChanged(section=name, edits=list(found)))
    return GraphDiff(changes=changes, layout=layout)


def apply(diff: GraphDiff, document: Document) -> dict[str, Any]:
    """`document` as `diff` changes it. Raises `DoesNotFit` where it is not what the diff was made from."""
    sections = [change for change in diff.changes if isinstance(change, SectionChanged)]
    made: dict[str, Any] = edited(
        dict(document), [edit for change in sections for edit in change.edits] + diff.layout
    )
    nodes = [c for c in diff.changes if isinstance(c, NodeAdded | NodeRemoved | NodeChanged)]
    edges = [c for c in diff.changes if isinstance(c, EdgeAdded | EdgeRemoved)]
    orders = {c.section: c.order for c in diff.changes if isinstance(c, Reordered)}
    if nodes or "nodes" in orders:
        made["nodes"] = _changed_nodes(_demanded(made, "nodes"), nodes, orders.get("nodes"))
    if edges or "edges" in orders:
        made["edges"] = _changed_edges(_demanded(made, "edges"), edges, orders.get("edges"))
    return made


def _only(document: Document, names: Iterable[str]) -> dict[str, Any]:
    return {name: document[name] for name in names if name in document}


def _section_of(edit: Edit) -> str:
    return edit.pointer.split("/")[1].replace("~1", "/").replace("~0", "~")


def _keyed(document: Document, section: str) -> dict[str, Item] | None:
    """The items of a section by what they are known by; None where it has not the form of one."""
    items = document.get(section)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return None
    if section == "nodes" and not all(isinstance(item.get("id"), str) for item in items):
        return None
    found = {_KEYS[section](item): item for item in items}
    return found if len(found) == len(items) else None


def _edge_key(edge: Item) -> str:
    return json.dumps(edge, sort_keys=True)


_KEYS: dict[str, Callable[[Item], str]] = {"nodes": lambda node: str(node["id"]), "edges": _edge_key}


def _node_changes(old: dict[str, Item], new: dict[str, Item]) -> Iterator[Change]:
    for name, node in old.items():
        if name not in new:
            yield NodeRemoved(id=name, node=node)
        elif edits := list(edits_between(node, new[name])):
            yield NodeChanged(id=name, edits=edits)
    yield from _reordered("nodes", old, new)
    for index, (name, node) in enumerate(new.items()):
        if name not in old:
            yield NodeAdded(id=name, index=index, node=node)


def _edge_changes(old: dict[str, Item], new: dict[str, Item]) -> Iterator[Change]:
    for key, edge in old.items():
        if key not in new:
            yield EdgeRemoved(edge=edge)
    yield from _reordered("edges", old, new)
    for index, (key, edge) in enumerate(new.items()):
        if key not in old:
            yield EdgeAdded(index=index, edge=edge)


def _reordered(section: Section, old: dict[str, Item], new: dict[str, Item]) -> Iterator[Reordered]:
    places = {key: place for place, key in enumerate(key for key in old if key in new)}
    order = [places[key] for key in new if key in old]
    if order != sorted(order):
        yield Reordered(section=section, order=order)


def _demanded(document: Document, section: str) -> dict[str, Item]:
    found = _keyed(document, section)
    if found is None:
        raise DoesNotFit(f"/{section}", f"it has no list of {section} that can be told apart")
    return found


def _changed_nodes(
    nodes: dict[str, Item],
    changes: Sequence[NodeAdded | NodeRemoved | NodeChanged],
    order: list[int] | None,
) -> list[Item]:
    places = {name: place for place, name in enumerate(nodes)}
    for change in changes:
        if isinstance(change, NodeAdded):
            continue
        if change.id not in nodes:
            raise DoesNotFit("/nodes", f"there is no node {change.id!r}")
        where = f"/nodes/{places[change.id]}"
        if isinstance(change, NodeChanged):
            nodes[change.id] = edited(nodes[change.id], change.edits, within=where)
        elif not same(nodes.pop(change.id), change.node):
            raise DoesNotFit(where, f"the node {change.id!r} is another one than the diff removes")
    kept = _in_order("nodes", list(nodes.values()), order)
    added = [(change.index, change.node) for change in changes if isinstance(change, NodeAdded)]
    return _with("nodes", kept, added)


def _changed_edges(
    edges: dict[str, Item], changes: Sequence[EdgeAdded | EdgeRemoved], order: list[int] | None
) -> list[Item]:
    for change in changes:
        if isinstance(change, EdgeRemoved) and edges.pop(_edge_key(change.edge), None) is None:
            raise DoesNotFit("/edges", f"there is no edge {json.dumps(change.edge)}")
    kept = _in_order("edges", list(edges.values()), order)
    added = [(change.index, change.edge) for change in changes if isinstance(change, EdgeAdded)]
    return _with("edges", kept, added)


def _in_order(section: Section, items: list[Item], order: list[int] | None) -> list[Item]:
    if order is None:
        return items
    if sorted(order) != list(range(len(items))):
        raise DoesNotFit(f"/{section}", f"the diff orders {len(order)} {section}, not {len(items)}")
    return [items[place] for place in order]


def _with(section: Section, items: list[Item], added: list[tuple[int, Any]]) -> list[Item]:
    key = _KEYS[section]
    known = {key(item) for item in items}
    for index, item in added:
        if key(item) in known:
            raise DoesNotFit(f"/{section}", f"{json.dumps(key(item))} is there already")
        if index > len(items):
            raise DoesNotFit(f"/{section}/{index}", f"there are only {len(items)} {section} before it")
        items.insert(index, copy.deepcopy(item))
    return items
