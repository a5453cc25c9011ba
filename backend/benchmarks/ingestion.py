"""How much of a worker's CPU goes into embedding, which is the part that nobody can leave out."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx2
import psutil

from app.rag.indexing import indexed
from app.rag.providers.model.minilm import MiniLM
from benchmarks._texts import HANDBOOK, make_texts
from benchmarks.children import BenchmarkFailed, Platform, call, data_folder, platform
from benchmarks.processes import cpu_s, own_cpu_s, resident_mb, running_module, tree_cpu_s
from benchmarks.registry import Row, Scale, benchmark

_AIM = 1.25
"""Embedding is then at least 80 % of it."""
_COLLECTION = "ingested"
_WORDS = 700
_POLL_S = 0.2
_LIMIT_S = 1800


@benchmark("ingestion", floor="the embedder alone, in one call, on the texts that the chunks became")
async def ingestion(scale: Scale) -> list[Row]:
    texts = make_texts(scale.pick(1, 8, 400), words=_WORDS, seed=3)
    with data_folder() as data_dir, platform(data_dir, worker=True) as ours:
        async with ours.client() as client:
            await call(client, "POST", "/collections", {"name": _COLLECTION, "slug": _COLLECTION})
            await _send_texts(client, make_texts(1, words=50, seed=4))
            await _wait(client)  # by now the worker has loaded its model
            (worker,) = running_module(ours.child.process, "app.workers.celery_app")
            began = _now(worker, ours)
            await _send_files(client, sorted(HANDBOOK.iterdir()))
            await _send_texts(client, texts)
            await _wait(client)
            used = [after - before for after, before in zip(_now(worker, ours), began, strict=True)]
            memory_mb = max(resident_mb(process) for process in worker.children())
            embedded = await _embedded_texts(client)
        floor_s, floor_wall_s, floor_mb = await _embed_alone(data_dir, embedded)
    worker_ms, database_ms, floor_ms = (s * 1e3 / len(embedded) for s in (used[0], used[1], floor_s))
    what = f"{len(embedded)} chunks"
    return [
        Row(f"{what}: worker", "CPU ms per chunk", worker_ms, floor_ms, _AIM),
        Row(f"{what}: with PostgreSQL", "CPU ms per chunk", worker_ms + database_ms, floor_ms),
        Row(f"{what}: until all can be searched", "s", used[2], floor_wall_s),
        Row("memory of the worker's process", "MB", memory_mb, floor_mb),
    ]


def _now(worker: psutil.Process, ours: Platform) -> tuple[float, float, float]:
    """CPU seconds of worker and database, and the wall clock."""
    return tree_cpu_s(worker), cpu_s(ours.postgres), time.perf_counter()


async def _send_texts(client: httpx2.AsyncClient, texts: list[str]) -> None:
    items = [{"title": f"Text {n} of {len(texts)}", "text": text} for n, text in enumerate(texts)]
    await call(client, "POST", f"/collections/{_COLLECTION}/documents/text", {"items": items})


async def _send_files(client: httpx2.AsyncClient, paths: list[Path]) -> None:
    files = [("files", (path.name, path.read_bytes())) for path in paths]
    answer = await client.post(f"/api/v1/collections/{_COLLECTION}/documents", files=files)
    if answer.status_code != 202:
        raise BenchmarkFailed(f"the files were not taken: {answer.text[:500]}")


async def _wait(client: httpx2.AsyncClient) -> None:
    """Until every document is ready."""
    async with asyncio.timeout(_LIMIT_S):
        while True:
            states = (await call(client, "GET", f"/collections/{_COLLECTION}"))["documents"]
            if states.keys() == {"ready"}:
                return
            if states.get("failed"):
                raise BenchmarkFailed(f"some documents were not ingested: {states}")
            await asyncio.sleep(_POLL_S)


async def _embedded_texts(client: httpx2.AsyncClient) -> list[str]:
    """What the worker gave to the model: each chunk under its document's title, equal ones once."""
    texts: list[str] = []
    first = f"/collections/{_COLLECTION}/documents?limit=200"
    following: str | None = first
    while following is not None:
        page = await call(client, "GET", following)
        for item in page["items"]:
            read: Any = await call(client, "GET", f"/documents/{item['id']}/text")
            texts += [indexed(item["title"], chunk["text"], None).text for chunk in read["chunks"]]
        following = f"{first}&cursor={page['next_cursor']}" if page["next_cursor"] else None
    return list(dict.fromkeys(texts))


async def _embed_alone(data_dir: Path, texts: list[str]) -> tuple[float, float, float]:
    """CPU and wall seconds, and the memory that the model takes in MB."""
    process = psutil.Process()
    without_mb = resident_mb(process)
    model = MiniLM(data_dir / "models")
    await model.embed(texts[:1])
    cpu, wall = own_cpu_s(), time.perf_counter()
    await model.embed(texts)
    cpu, wall = own_cpu_s() - cpu, time.perf_counter() - wall
    model.close()
    return cpu, wall, resident_mb(process) - without_mb
