"""The policy `cache`: what a node handed on before, where it is asked the same again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter

from app.agent.core.base import NodeError, NodeType
from app.agent.core.interfaces import Citation
from app.agent.core.node_cache import CachedStep
from app.agent.graph.config_fields import uses_in
from app.agent.graph.references import Chain
from app.agent.graph.scope import NodeScope

_CITATIONS = TypeAdapter(list[Citation])


async def remembered(scope: NodeScope) -> dict[str, Any]:
    """The node's outputs: found in the cache and told as if they were new, or else produced, and kept."""
    node, cache = scope.node, scope.run.ports.cache
    if node.cache is None:
        return await _produced(scope)
    asked = [node.cache.key.text(scope)] if node.cache.key else _values(scope)
    key = _digest([node.id, bool(node.cache.key), asked])
    step = await cache.find(key)
    if step is not None and step.handle in node.config.handles():
        return await _told_again(scope, step)
    outputs = await _produced(scope)
    documents = frozenset(_documents([asked if node.cache.key is None else _values(scope), outputs]))
    step = CachedStep(scope.handle, outputs, tuple(scope.cited), documents)
    await cache.keep(key, step, ttl_s=node.cache.ttl_s)
    return outputs


async def _produced(scope: NodeScope) -> dict[str, Any]:
    node = scope.node
    return node.type.dump(await node.type.run(node.config, scope))


async def _told_again(scope: NodeScope, step: CachedStep) -> dict[str, Any]:
    scope.cached, scope.handle = True, step.handle
    await tell_again(scope, step.outputs, step.citations)
    return dict(step.outputs)


async def tell_again(scope: NodeScope, outputs: Mapping[str, Any], citations: Iterable[Citation]) -> None:
    """Text and citations of a node that has come to `outputs` before."""
    streams = scope.node.type.streams
    if streams and isinstance(text := outputs.get(streams), str):
        await scope.say(text)
    if reason := outputs.get("finish_reason"):
        scope.ended(reason)
    for citation in citations:
        await scope.cite(citation)


def citations_of(kind: NodeType, outputs: Mapping[str, Any]) -> list[Citation]:
    """Those that a node of the type handed on as its output `citations`, if it is one that cites."""
    return _CITATIONS.validate_python(outputs.get("citations") or []) if "citations" in kind.outputs else []


def _values(scope: NodeScope) -> list[Any]:
    """Every value that the configuration refers to; a list around each, empty where it is not set."""
    return [_value(scope, chain) for use in uses_in(scope.node.config) for chain in use.template.chains]


def _value(scope: NodeScope, chain: Chain) -> list[Any]:
    try:
        return [scope.value(chain)]
    except NodeError:
        return []


def _digest(asked: Any) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


def _documents(value: Any) -> Iterator[UUID]:
    """Documents that passages and citations in a JSON value come from."""
    todo = [value]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            if isinstance(found := part.get("document_id"), str) and (document := _uuid(found)):
                yield document
            todo.extend(part.values())
        elif isinstance(part, list):
            todo.extend(part)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
