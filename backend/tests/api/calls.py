"""Steps that many tests of the API take, and how its answers are read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2
from sqlalchemy import select

from app.core.constants import INGEST_QUEUE
from app.core.ids import new_id
from app.db.postgres.models.jobs import WorkItem, WorkKind
from app.db.postgres.repositories.work import OPEN
from tests.fixtures import Running
from tests.graphs import HELLO_GRAPH, greeting_graph

API = "/api/v1"


@dataclass(frozen=True, slots=True)
class Frame:
    """One server-sent event."""

    id: int
    event: str
    data: dict[str, Any]


def problem(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The body of an error, which has the one form that all our errors have."""
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["code"]) == (status, code), body
    assert response.headers["Content-Type"] == "application/problem+json"
    return body


def pointers(response: httpx2.Response, code: str = "invalid") -> list[str]:
    """Where a 422 points."""
    return [error["pointer"] for error in problem(response, 422, code)["errors"]]


def ok(response: httpx2.Response, status: int = 200) -> dict[str, Any]:
    body: dict[str, Any] = response.json()
    assert response.status_code == status, body
    return body


def frames(text: str) -> list[Frame]:
    """The events of a stream; comments are left out."""
    found = []
    for block in text.strip().split("\n\n"):
        lines = [line.partition(": ") for line in block.splitlines() if not line.startswith(":")]
        fields = {name: value for name, _, value in lines}
        if fields:
            found.append(Frame(int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


async def arriving(response: httpx2.Response) -> AsyncIterator[Frame]:
    """The events of a stream as they come."""
    block = ""
    async for line in response.aiter_lines():
        if line:
            block += line + "\n"
        else:
            for frame in frames(block):
                yield frame
            block = ""


async def new_agent(
    client: httpx2.AsyncClient, graph: dict[str, Any] = HELLO_GRAPH, *, publish: bool = True
) -> str:
    """The slug of a fresh agent."""
    slug = f"agent-{new_id().hex[-12:]}"
    ok(await client.post(f"{API}/agents", json={"name": "Agent", "slug": slug, "graph": graph}), 201)
    if publish:
        ok(await client.post(f"{API}/agents/{slug}/publish", json={}), 201)
    return slug


async def next_version(client: httpx2.AsyncClient, slug: str, text: str, *, note: str = "") -> dict[str, Any]:
    """Publishes the agent with a greeting of its own."""
    ok(await client.patch(f"{API}/agents/{slug}", json={"graph": greeting_graph(text)}))
    return ok(await client.post(f"{API}/agents/{slug}/publish", json={"note": note}), 201)


async def new_collection(client: httpx2.AsyncClient) -> str:
    """The slug of a fresh collection."""
    slug = f"shelf-{new_id().hex[-12:]}"
    ok(await client.post(f"{API}/collections", json={"name": "Shelf", "slug": slug}), 201)
    return slug


async def add_texts(client: httpx2.AsyncClient, collection: str, *items: dict[str, Any]) -> dict[str, Any]:
    path = f"{API}/collections/{collection}/documents/text"
    return ok(await client.post(path, json={"items": list(items)}), 202)


async def work(server: Running) -> None:
    """Works off what is queued, until no document waits to be ingested, not even for another attempt."""
    waiting = select(WorkItem.id).where(WorkItem.kind == WorkKind.INGEST, WorkItem.state.in_(OPEN)).limit(1)
    async with asyncio.timeout(60):
        while True:
            await server.drain().run(INGEST_QUEUE)
            async with server.resources.database.system_work() as session:
                if (await session.execute(waiting)).first() is None:
                    return
            await asyncio.sleep(0.1)


async def finished(client: httpx2.AsyncClient, server: Running, job_id: str) -> dict[str, Any]:
    """The job when it has ended."""
    async with asyncio.timeout(60):
        while True:
            await work(server)
            job = ok(await client.get(f"{API}/jobs/{job_id}"))
            if job["status"] not in ("queued", "running"):
                return job
            await asyncio.sleep(0.1)


async def ended(client: httpx2.AsyncClient, run_id: str) -> dict[str, Any]:
    """The run when it has ended."""
    async with asyncio.timeout(60):
        while True:
            run = ok(await client.get(f"{API}/runs/{run_id}"))
            if run["finished_at"] is not None:
                return run
            await asyncio.sleep(0.05)


def keyed(key: str | None = None) -> dict[str, str]:
    """The header of a request that is to have its effect once."""
    return {"Idempotency-Key": key or new_id().hex}


async def total(client: httpx2.AsyncClient, path: str) -> int:
    """How many items a list has, up to a page."""
    items: list[Any] = ok(await client.get(f"{API}/{path}", params={"limit": 200}))["items"]
    return len(items)
