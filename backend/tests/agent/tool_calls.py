"""Tools of one project over a real way out, and whom they call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import app.agent.tools.kinds  # noqa: F401  (registers the kinds)
from app.agent.core.interfaces import Passage
from app.agent.core.sandbox import CodeRunner
from app.agent.graph.ports import NoCode, NoExpressions
from app.agent.tools.kind import TOOL_KINDS, Naming, Offer, ToolLimits, ToolPorts
from app.agent.tools.registered import RegisteredTool
from app.core.timed_cache import TimedCache
from app.services.http_service import ProjectHttp
from tests.agent.http_calls import Vault
from tests.core.peers import Script, peer, way_out


class NoRetriever:
    """Where no collection is searched."""

    async def search(self, collection: str, query: str, *, top_k: int, mode: str) -> list[Passage]:
        raise AssertionError(f"nobody was to search {collection!r}")


def ports(http: Any, *, listing_s: float = 0, code: CodeRunner | None = None, **limits: Any) -> ToolPorts:
    return ToolPorts(
        project="p",
        http=http,
        streams=http,
        expressions=NoExpressions(),
        code=code or NoCode(),
        retriever=NoRetriever(),
        listings=TimedCache(ttl_s=listing_s, size=10),
        limits=ToolLimits(**limits),
    )


async def offered(config: dict[str, Any], given: ToolPorts, *, slug: str = "tool") -> Offer:
    kind = TOOL_KINDS[config["kind"]]
    return await kind.offers(kind.config.model_validate(config), Naming(slug, ""), given)


async def registered(config: dict[str, Any], given: ToolPorts) -> dict[str, RegisteredTool]:
    """What a configuration offers, by name."""
    kind = TOOL_KINDS[config["kind"]]
    made = kind.config.model_validate(config)
    operations = (await offered(config, given)).operations
    return {
        one.name: RegisteredTool(kind, made, one, needs_approval=False, ports=given) for one in operations
    }


@asynccontextmanager
async def opened(*authorities: str, max_bytes: int = 2**20, **limits: Any) -> AsyncIterator[ToolPorts]:
    """Ports whose way out leads to these only."""
    async with way_out(*authorities) as egress:
        yield ports(ProjectHttp(egress, Vault(), max_bytes), **limits)


@asynccontextmanager
async def answered_by(script: Script, **limits: Any) -> AsyncIterator[tuple[Any, ToolPorts]]:
    """A peer that does as told, and ports that lead to it."""
    async with peer(script) as there, opened(there.authority, **limits) as made:
        yield there, made
