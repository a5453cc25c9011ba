"""The cache of node results as the engine consumes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from app.agent.core.interfaces import Citation


@dataclass(frozen=True, slots=True)
class CachedStep:
    """What a node handed on, kept for when it is asked the same again.

    `documents` are those whose text is in it, or was in what the node was asked.
    """

    handle: str
    outputs: Mapping[str, Any]
    citations: tuple[Citation, ...] = ()
    documents: frozenset[UUID] = frozenset()


class NodeCache(Protocol):
    """Results of nodes, kept for the run's project. Never fails: what it cannot do, it leaves undone.

    `key` says what the node was asked; the version of the agent is added to it.
    """

    async def find(self, key: str) -> CachedStep | None: ...

    async def keep(self, key: str, step: CachedStep, *, ttl_s: float) -> None: ...
