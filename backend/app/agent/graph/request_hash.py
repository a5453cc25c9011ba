"""What a node is asked, as a hash: whether what came of it in another run is the answer in this one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from app.agent.graph.config_fields import bound_names
from app.agent.graph.plan import Plan, PlannedNode

if TYPE_CHECKING:
    from app.agent.graph.scope import Values

_SORTED = orjson.OPT_SORT_KEYS
_KEPT = "\ufffd".encode()
_HALF = re.compile("[\ud800-\udfff]")


def request_hash(plan: Plan, node: PlannedNode, values: Values) -> str:
    """The same where a node of this type, with this configuration and these bindings, finds these values.

    Policies do not count. A node with a graph inside counts with all that the graph may name.
    """
    found = [[str(reference), *values.find(reference)] for reference in node.references]
    return hashlib.sha256(definition(plan, node) + _json(found)).hexdigest()


def call_hash(plan: Plan, node: PlannedNode, asked: Any) -> str:
    """The same where a call of a node asks the same of what goes by the same names."""
    return hash_of([_bound(plan, node), asked])


def hash_of(asked: Any) -> str:
    """Of a JSON value."""
    return hashlib.sha256(_json(asked)).hexdigest()


def definition(plan: Plan, node: PlannedNode) -> bytes:
    """The part of it that is the same in every run; kept with the plan."""
    known = plan.definitions.get(node.id)
    if known is None:
        known = plan.definitions[node.id] = _json([node.type.name, node.written, _bound(plan, node)])
    return known


def _bound(plan: Plan, node: PlannedNode) -> Mapping[str, Any]:
    """The names that the node uses, with what they stand for."""
    bindings: dict[str, dict[str, str]] = plan.bindings.model_dump(mode="json")
    if node.inner is not None:
        return bindings
    named = bound_names(node.type.config, node.written)
    return {f"{kind}.{name}": bindings[kind].get(name) for _, kind, name in named}


def _json(value: Any) -> bytes:
    """The same before the value was stored and after: what no row can hold counts as what is kept of it."""
    try:
        return orjson.dumps(value, option=_SORTED).replace(b"\\u0000", _KEPT)
    except TypeError:  # half a surrogate pair, a huge integer
        text = json.dumps(value, sort_keys=True, default=str, ensure_ascii=False, separators=(",", ":"))
        return _HALF.sub("\ufffd", text).encode().replace(b"\\u0000", _KEPT)
