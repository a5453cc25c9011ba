"""What a search costs over HTTP, compared with the SQL statements that it cannot do without."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import numpy as np
from pgvector import SparseVector as PgSparse
from pgvector.asyncpg import register_vector

from app.core.config import Settings
from app.core.constants import INGEST_QUEUE
from app.rag.providers.model.query_cache import CachedQueries
from app.rag.providers.vector_store.pgvector_tables import SPARSE_DIMENSIONS
from app.rag.sparse import encode_query, query_terms
from app.rag.types import Dense
from app.resources import open_resources
from app.workers.job_manager import make_drain
from benchmarks._texts import make_queries, make_texts
from benchmarks.children import Platform, call, data_folder, platform
from benchmarks.processes import cpu_s, own_cpu_s
from benchmarks.registry import Row, Scale, benchmark

AIM = 1.3
_COLLECTION = "searched"
_CHUNK_WORDS = 87
_DOCUMENT_CHUNKS = 20
_BATCH = 200
_ROUNDS = 3
_TOP_K = 10
_CANDIDATES = 100
_MODES = ("keyword", "dense", "hybrid")

_MINE = "FROM vector_entries WHERE org_id = $1 AND index_id = $2 AND visible"
_FREQUENCIES = (
    "SELECT term, documents FROM vector_terms WHERE org_id = $1 AND index_id = $2 AND term = ANY($3)"
)
_DENSE = f"""
    SELECT chunk_id, document_id, -(dense <#> $3) AS score {_MINE}
    ORDER BY dense <#> $3, chunk_id LIMIT $4
"""
_KEYWORD = f"""
    SELECT chunk_id, document_id, -(sparse <#> $3) AS score {_MINE} AND terms && $5::int[]
    ORDER BY sparse <#> $3, chunk_id LIMIT $4
"""
_TEXTS = """
    SELECT c.id, c.text, c.page, c.start_offset, c.end_offset, d.id, d.title, d.external_id, d.metadata
    FROM chunks c JOIN documents d ON d.org_id = c.org_id AND d.id = c.document_id
    WHERE c.org_id = $1 AND c.id = ANY($2) AND d.deleted_at IS NULL
"""
Ask = Callable[[int], Awaitable[None]]


class RandomVectors:
    """`Embedder` in the place of the offline model, so that thousands of chunks are quickly made."""

    name = "all-minilm-l6-v2"
    dimensions = 384

    def __init__(self) -> None:
        self._chance = np.random.default_rng(1)

    async def embed(self, texts: Sequence[str]) -> Dense:
        vectors = self._chance.standard_normal((len(texts), self.dimensions), np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A query as the bare statements take it."""

    terms: list[int]
    sparse: PgSparse
    dense: Dense


@dataclass(frozen=True, slots=True)
class _Bare:
    """One connection of the application's role, and whose rows it searches."""

    connection: asyncpg.Connection[Any]
    org_id: UUID
    index_id: UUID

    async def search(self, query: _Prepared, mode: str) -> None:
        """The statements of one search in one transaction, answered rows dropped."""
        ask = self.connection.fetch
        async with self.connection.transaction():
            await self.connection.execute("SELECT set_config('app.org', $1, true)", str(self.org_id))
            found: list[Any] = []
            if mode != "keyword":
                found += await ask(_DENSE, self.org_id, self.index_id, query.dense, _CANDIDATES)
            if mode != "dense":
                await ask(_FREQUENCIES, self.org_id, self.index_id, query.terms)
                found += await ask(
                    _KEYWORD, self.org_id, self.index_id, query.sparse, _CANDIDATES, query.terms
                )
            best = sorted(found, key=lambda row: -float(row["score"]))[:_TOP_K]
            await ask(_TEXTS, self.org_id, [row["chunk_id"] for row in best])


@benchmark("search", floor="the same SQL statements on one asyncpg connection, without HTTP and accounts")
async def search(scale: Scale) -> list[Row]:
    chunks = scale.pick(20, 2_000, 20_000)
    queries = make_queries(scale.pick(2, 20, 100))
    with data_folder() as data_dir, platform(data_dir) as ours:
        async with ours.client() as client:
            found = await call(client, "POST", "/collections", {"name": _COLLECTION, "slug": _COLLECTION})
            await _fill(ours, client, chunks)
            me = await call(client, "GET", "/auth/me")
            connection = await asyncpg.connect(ours.services.database_url)
            await register_vector(connection)
            bare = _Bare(connection, UUID(me["org_id"]), UUID(found["index"]["id"]))
            count = (await call(client, "GET", f"/collections/{_COLLECTION}"))["index"]["chunk_count"]
            prepared = [await _prepare(bare, query, count) for query in queries]
            rows = [
                row for mode in _MODES for row in await _rows(ours, client, bare, mode, queries, prepared)
            ]
            await connection.close()
    return [replace(row, what=f"{count:,} chunks, {row.what}") for row in rows]


async def _fill(ours: Platform, client: httpx2.AsyncClient, chunks: int) -> None:
    """Takes the documents in over HTTP and works them off here, with vectors of chance."""
    documents = make_texts(max(1, chunks // _DOCUMENT_CHUNKS), words=_DOCUMENT_CHUNKS * _CHUNK_WORDS)
    items = [{"title": f"Document {n}", "text": text} for n, text in enumerate(documents)]
    for start in range(0, len(items), _BATCH):
        body = {"items": items[start : start + _BATCH]}
        await call(client, "POST", f"/collections/{_COLLECTION}/documents/text", body)
    services = ours.services
    settings = Settings(data_dir=ours.data_dir, _env_file=None)
    async with open_resources(
        settings,
        database_url=services.database_url,
        redis_url=services.redis_url,
        wake=_nobody,
        owner="local:benchmark",
    ) as resources:
        drain = make_drain(replace(resources, embedder=CachedQueries(RandomVectors())), "local:benchmark")
        await drain.run(INGEST_QUEUE)


async def _nobody(queue: str) -> None:
    """The queue is worked off here."""


async def _prepare(bare: _Bare, query: str, count: int) -> _Prepared:
    said = query_terms(query, ["en", None])
    async with bare.connection.transaction():
        await bare.connection.execute("SELECT set_config('app.org', $1, true)", str(bare.org_id))
        rows = await bare.connection.fetch(_FREQUENCIES, bare.org_id, bare.index_id, sorted(said))
    weights = encode_query({row["term"]: row["documents"] for row in rows}, document_count=count, counts=said)
    vector = (await RandomVectors().embed([query]))[0]
    by_term = dict(zip(weights.indices, weights.values, strict=True))
    sparse = PgSparse({term - 1: weight for term, weight in by_term.items()}, SPARSE_DIMENSIONS)
    return _Prepared(list(by_term), sparse, vector)


async def _rows(
    ours: Platform,
    client: httpx2.AsyncClient,
    bare: _Bare,
    mode: str,
    queries: Sequence[str],
    prepared: Sequence[_Prepared],
) -> list[Row]:
    async def ask_ours(number: int) -> None:
        body = {"collections": [_COLLECTION], "query": queries[number], "mode": mode, "top_k": _TOP_K}
        await call(client, "POST", "/search", body)

    async def ask_bare(number: int) -> None:
        await bare.search(prepared[number], mode)

    await asyncio.gather(*(ask_ours(number) for number in range(len(queries))))  # vectors of queries are kept
    await _cost(ask_bare, len(queries), own_cpu_s)
    postgres = ours.postgres
    processes = [ours.child.process, *postgres]
    with_platform, without = [], []
    for _ in range(_ROUNDS):
        with_platform.append(await _cost(ask_ours, len(queries), lambda: cpu_s(processes)))
        without.append(await _cost(ask_bare, len(queries), lambda: own_cpu_s() + cpu_s(postgres)))
    ours_cpu, ours_ms = (min(column) for column in zip(*with_platform, strict=True))
    bare_cpu, bare_ms = (min(column) for column in zip(*without, strict=True))
    return [
        Row(f"{mode}: with PostgreSQL", "CPU ms per query", ours_cpu, bare_cpu, AIM),
        Row(f"{mode}: median latency", "ms", ours_ms, bare_ms, AIM),
    ]


async def _cost(ask: Ask, count: int, used_s: Callable[[], float]) -> tuple[float, float]:
    """Asks one query after another: CPU milliseconds per query, and the median of what each took."""
    before, times = used_s(), []
    for number in range(count):
        began = time.perf_counter()
        await ask(number)
        times.append((time.perf_counter() - began) * 1e3)
    return (used_s() - before) * 1e3 / count, median(times)
