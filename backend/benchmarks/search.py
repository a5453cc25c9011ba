"""What a search costs over HTTP, compared with the SQL statements that it cannot do without."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
from pgvector import SparseVector as PgSparse
from pgvector.asyncpg import register_vector

from app.rag.providers.vector_store.pgvector_tables import SPARSE_DIMENSIONS
from app.rag.sparse import encode_query, query_terms
from app.rag.types import Dense
from benchmarks._filling import RandomVectors, fill, multiply
from benchmarks._texts import make_queries
from benchmarks.children import Platform, call, data_folder, platform
from benchmarks.processes import cpu_s, own_cpu_s, used
from benchmarks.registry import Report, Row, Scale, benchmark
from benchmarks.rounds import Cost, Rounds, Side, take_turns

_AIM = 1.5
_COLLECTION = "searched"
_TOP_K = 10
_CANDIDATES = 100
_MODES = ("keyword", "dense", "hybrid")
_LATENCY, _CLIENT = "latency", "bare client"

# Written for this comparison, not taken from the platform: what it asks must not lower its own floor.
_FREQUENCIES = (
    "SELECT term, documents FROM vector_terms WHERE org_id = $1 AND index_id = $2 AND term = ANY($3)"
)
_MINE = "FROM vector_entries WHERE org_id = $1 AND index_id = $2 AND visible ORDER BY 3, 1 LIMIT $4"
_DENSE = f"SELECT chunk_id, document_id, dense <#> $3 AS distance {_MINE}"
_KEYWORD = f"SELECT chunk_id, document_id, sparse <#> $3 AS distance {_MINE}"
_TEXTS = """
    SELECT c.id, c.text, c.page, c.start_offset, c.end_offset, d.id, d.title, d.external_id, d.metadata
    FROM chunks c JOIN documents d ON d.org_id = c.org_id AND d.id = c.document_id
    WHERE c.org_id = $1 AND c.id = ANY($2) AND d.deleted_at IS NULL
"""
Ask = Callable[[int], Awaitable[None]]


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
                found += await ask(_KEYWORD, self.org_id, self.index_id, query.sparse, _CANDIDATES)
            best = sorted(found, key=lambda row: float(row["distance"]))[:_TOP_K]
            await ask(_TEXTS, self.org_id, [row["chunk_id"] for row in best])


@benchmark("search", floor="the SQL statements of a search on one asyncpg connection, nothing around them")
async def search(scale: Scale) -> Report:
    ingested, copies = scale.pick((20, 1), (2_000, 10), (20_000, 1))
    queries = make_queries(scale.pick(2, 20, 50))
    with data_folder() as data_dir, platform(data_dir) as ours:
        async with ours.client() as client:
            found = await call(client, "POST", "/collections", {"name": _COLLECTION, "slug": _COLLECTION})
            await fill(ours, client, _COLLECTION, chunks=ingested)
            await multiply(ours.services.migration_url, copies)
            me = await call(client, "GET", "/auth/me")
            connection = await asyncpg.connect(ours.services.database_url)
            await register_vector(connection)
            bare = _Bare(connection, UUID(me["org_id"]), UUID(found["index"]["id"]))
            count = (await call(client, "GET", f"/collections/{_COLLECTION}"))["index"]["chunk_count"]
            prepared = [await _prepare(bare, query, count) for query in queries]
            rounds = await _measured(ours, client, bare, queries, prepared, scale.pick(1, 3, 5))
            await connection.close()
    return _report(rounds, count)


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


async def _measured(
    ours: Platform,
    client: httpx2.AsyncClient,
    bare: _Bare,
    queries: Sequence[str],
    prepared: Sequence[_Prepared],
    rounds: int,
) -> Rounds:
    async def ask_ours(mode: str, number: int) -> None:
        body = {"collections": [_COLLECTION], "query": queries[number], "mode": mode, "top_k": _TOP_K}
        await call(client, "POST", "/search", body)

    async def ask_bare(mode: str, number: int) -> None:
        await bare.search(prepared[number], mode)

    def bare_cpu() -> dict[str, float]:
        return {_CLIENT: own_cpu_s(), "PostgreSQL": cpu_s(ours.postgres)}

    sides: dict[str, Side] = {}
    for mode in _MODES:
        sides[mode] = partial(_cost, partial(ask_ours, mode), len(queries), ours.cpu)
        sides[f"{mode}, floor"] = partial(_cost, partial(ask_bare, mode), len(queries), bare_cpu)
    await take_turns(sides, 1)  # statements are prepared and vectors of queries kept from here on
    return await take_turns(sides, rounds)


def _report(rounds: Rounds, chunks: int) -> Report:
    rows: list[Row] = []
    cpu: dict[str, Cost] = {}
    for mode in _MODES:
        floor = f"{mode}, floor"
        mine, bare = rounds.least(mode), rounds.least(floor)
        clocks = ("API", "PostgreSQL", _CLIENT)
        what = f"{chunks:,} chunks, {mode}"
        rows += [
            Row(
                f"{what}: API and PostgreSQL",
                "CPU ms per query",
                mine["API"] + mine["PostgreSQL"],
                bare[_CLIENT] + bare["PostgreSQL"],
                _AIM,
                spread=rounds.spread(mode, floor, *clocks),
            ),
            Row(
                f"{what}: median latency",
                "ms",
                mine[_LATENCY],
                bare[_LATENCY],
                spread=rounds.spread(mode, floor, _LATENCY),
            ),
        ]
        cpu |= {
            side: {k: v for k, v in cost.items() if k != _LATENCY}
            for side, cost in ((mode, mine), (floor, bare))
        }
    return Report(rows, cpu, "CPU ms per query")


async def _cost(ask: Ask, count: int, cpu: Callable[[], dict[str, float]]) -> Cost:
    """Asks one query after another: CPU milliseconds per query by process, and the median latency."""
    before, times = cpu(), []
    for number in range(count):
        began = time.perf_counter()
        await ask(number)
        times.append((time.perf_counter() - began) * 1e3)
    return used(before, cpu(), per=count / 1e3) | {_LATENCY: median(times)}
