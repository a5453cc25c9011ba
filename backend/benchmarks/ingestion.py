"""How much of a worker's CPU goes into embedding, which is the part that nobody can leave out."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx2
import psutil

from app.rag.indexing import indexed
from app.rag.providers.model.minilm import MiniLM
from benchmarks._texts import HANDBOOK, make_texts
from benchmarks.children import WORKER, BenchmarkFailed, Platform, call, data_folder, platform
from benchmarks.processes import own_cpu_s, resident_mb, running_module, used
from benchmarks.registry import Report, Row, Scale, benchmark
from benchmarks.rounds import Cost

_AIM = 1.25
"""Embedding is then at least 80 % of it."""
_COLLECTION = "ingested"
_EMBEDDER, _WALL = "embedder", "wall"
_WORDS = 700
_POLL_S = 0.2
_LIMIT_S = 1800


@benchmark(
    "ingestion", floor="the embedder alone, in one call per round, on the texts that the chunks became"
)
async def ingestion(scale: Scale) -> Report:
    """Rounds of documents; after each, its texts are embedded alone, so that both meet the same noise."""
    rounds = scale.pick(1, 2, 4)
    texts = make_texts(scale.pick(1, 12, 400), words=_WORDS, seed=3)
    share = -(-len(texts) // rounds)
    with data_folder() as data_dir, platform(data_dir, worker=True) as ours:
        async with ours.client() as client:
            await call(client, "POST", "/collections", {"name": _COLLECTION, "slug": _COLLECTION})
            await _send_texts(client, make_texts(1, words=50, seed=4))
            await _wait(client)  # by now the worker has loaded its model
            known = set(await _embedded_texts(client))
            alone = await _Alone.load(data_dir)
            measured = []
            for start in range(0, len(texts), share):
                files = sorted(HANDBOOK.iterdir()) if start == 0 and scale > Scale.TINY else []
                cost = await _ingested(client, ours, files, texts[start : start + share])
                fresh = [text for text in await _embedded_texts(client) if text not in known]
                known.update(fresh)
                measured.append((cost, await alone.embed(fresh), len(fresh)))
            (worker,) = running_module(ours.child.process, WORKER)
            memory_mb = max(resident_mb(process) for process in worker.children())
            alone.model.close()
    return _report(measured, memory_mb, alone.memory_mb)


async def _ingested(client: httpx2.AsyncClient, ours: Platform, files: list[Path], texts: list[str]) -> Cost:
    """CPU seconds by process, and wall seconds, until all of it can be searched."""
    before, began = ours.cpu(), time.perf_counter()
    if files:
        await _send_files(client, files)
    if texts:
        await _send_texts(client, texts)
    await _wait(client)
    return used(before, ours.cpu()) | {_WALL: time.perf_counter() - began}


def _report(measured: list[tuple[Cost, Cost, int]], memory_mb: float, floor_mb: float) -> Report:
    chunks = sum(count for _, _, count in measured)
    names = measured[0][0].keys()
    ours = {name: sum(cost[name] for cost, _, _ in measured) for name in names}
    floor = {name: sum(bare[name] for _, bare, _ in measured) for name in (_EMBEDDER, _WALL)}
    ratios = [cost["worker"] / bare[_EMBEDDER] for cost, bare, _ in measured]
    spread = max(ratios) / min(ratios) - 1 if len(ratios) > 1 else None
    worker_ms, postgres_ms = (ours[name] * 1e3 / chunks for name in ("worker", "PostgreSQL"))
    floor_ms = floor[_EMBEDDER] * 1e3 / chunks
    unit = "CPU ms per chunk"
    what = f"{chunks} chunks"
    rows = [
        Row(f"{what}: worker (embedding ≥ 80 %)", unit, worker_ms, floor_ms, _AIM, spread=spread),
        Row(f"{what}: worker and PostgreSQL", unit, worker_ms + postgres_ms, floor_ms),
        Row(f"{what}: until all can be searched", "s", ours[_WALL], floor[_WALL]),
        Row("memory of the worker's process", "MB", memory_mb, floor_mb),
    ]
    cpu = {"ours": {name: value for name, value in ours.items() if name != _WALL}}
    return Report(rows, cpu | {"floor": {_EMBEDDER: floor[_EMBEDDER]}})


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


@dataclass(frozen=True, slots=True)
class _Alone:
    """The embedder in this process; `memory_mb` is what loading it took."""

    model: MiniLM
    memory_mb: float

    @classmethod
    async def load(cls, data_dir: Path) -> Self:
        process = psutil.Process()
        without_mb = resident_mb(process)
        model = MiniLM(data_dir / "models")
        await model.embed(["loaded"])
        return cls(model, resident_mb(process) - without_mb)

    async def embed(self, texts: list[str]) -> Cost:
        cpu, wall = own_cpu_s(), time.perf_counter()
        await self.model.embed(texts)
        return {_EMBEDDER: own_cpu_s() - cpu, _WALL: time.perf_counter() - wall}
