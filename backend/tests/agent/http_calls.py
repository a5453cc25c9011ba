"""Agents of one `http` node, and whom it calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pydantic import SecretStr

from app.agent.core.http import Http
from app.agent.graph.ports import RunResult
from app.core.errors import NotFound
from app.services.http_service import ProjectHttp
from tests.agent.documents import end, graph, node
from tests.agent.doubles import Bench
from tests.core.peers import Peer, Script, peer, way_out

TOKEN = "canary-sk-4f7a1c9e2b"
JSON = "Content-Type: application/json"
FORM = "Content-Type: application/x-www-form-urlencoded"


class Vault:
    """Secrets of a project."""

    async def reveal(self, reference: str) -> SecretStr:
        if reference != "crm-token":
            raise NotFound(f"There is no secret {reference!r}.")
        return SecretStr(TOKEN)


def document(url: str, *, inputs: Sequence[str] = ("x",), **config: Any) -> dict[str, Any]:
    policies = {key: config.pop(key) for key in ("retry", "timeout_s", "effect", "cache") if key in config}
    outputs = {name: f"{{{{ call.{name} }}}}" for name in ("status", "headers", "body", "url")}
    found = graph(
        node("call", "http", {"url": url, **config}, **policies),
        end(**outputs),
        edges=["start > call", "call > done"],
    )
    found["inputs"] = {"type": "object", "properties": {name: {"default": ""} for name in inputs}}
    return found


def bench(found: dict[str, Any], http: Http, **ports: Any) -> Bench:
    return Bench(found, http=http, **ports)


async def run(bench: Bench, run_id: str = "r", **inputs: Any) -> RunResult:
    return await bench.given(inputs, run_id)


@asynccontextmanager
async def other_side(
    script: Script | None = None, *, max_bytes: int = 2**20
) -> AsyncIterator[tuple[Peer, Http]]:
    async with peer(script) as there, way_out(there.authority) as egress:
        yield there, ProjectHttp(egress, Vault(), max_bytes)
