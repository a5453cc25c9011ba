"""A collection of many chunks, quickly: vectors of chance, and copies made in the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import asyncpg
import httpx2
import numpy as np

from app.core.config import Settings
from app.core.constants import INGEST_QUEUE
from app.rag.providers.model.query_cache import CachedQueries
from app.rag.types import Dense
from app.resources import open_resources
from app.workers.job_manager import make_drain
from benchmarks._texts import make_texts
from benchmarks.children import Platform, call

_CHUNK_WORDS = 87
_DOCUMENT_CHUNKS = 20
_BATCH = 200
_COPIES = (
    """
    INSERT INTO chunks (org_id, id, document_id, document_version_id, pipeline_version_id, ordinal, text,
        start_offset, end_offset, page, heading_path, token_count, page_starts)
    SELECT org_id, md5(id::text || number)::uuid, document_id, document_version_id, pipeline_version_id,
        ordinal + 1000000 * number, text, start_offset, end_offset, page, heading_path, token_count,
        page_starts
    FROM chunks, generate_series(1, $1::int - 1) AS number
    """,
    """
    INSERT INTO vector_entries (org_id, index_id, chunk_id, document_id, document_version_id, visible,
        text_hash, term_count, terms, dense, sparse, payload)
    SELECT org_id, index_id, md5(chunk_id::text || number)::uuid, document_id, document_version_id, visible,
        text_hash, term_count, terms, dense, sparse, payload
    FROM vector_entries, generate_series(1, $1::int - 1) AS number
    """,
    "UPDATE vector_terms SET documents = documents * $1::int",
    "UPDATE index_versions SET chunk_count = chunk_count * $1::int, term_total = term_total * $1::int",
)


class RandomVectors:
    """`Embedder` in the place of the offline model, so that thousands of chunks are quickly made."""

    name = "all-minilm-l6-v2"
    dimensions = 384
    ready = True

    def __init__(self) -> None:
        self._chance = np.random.default_rng(1)

    async def embed(self, texts: Sequence[str]) -> Dense:
        vectors = self._chance.standard_normal((len(texts), self.dimensions), np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


async def fill(ours: Platform, client: httpx2.AsyncClient, collection: str, *, chunks: int) -> None:
    """Takes about as many chunks in over HTTP and works them off here, with vectors of chance."""
    documents = make_texts(max(1, chunks // _DOCUMENT_CHUNKS), words=_DOCUMENT_CHUNKS * _CHUNK_WORDS)
    items = [{"title": f"Document {n}", "text": text} for n, text in enumerate(documents)]
    for start in range(0, len(items), _BATCH):
        body = {"items": items[start : start + _BATCH]}
        await call(client, "POST", f"/collections/{collection}/documents/text", body)
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


async def multiply(owner_url: str, times: int) -> None:
    """Stores every chunk `times` times in all, under other ids: quicker than to ingest as many."""
    if times == 1:
        return
    connection = await asyncpg.connect(owner_url)
    for statement in _COPIES:
        await connection.execute(statement, times)
    await connection.execute("VACUUM ANALYZE chunks, vector_entries, vector_terms")
    await connection.close()


async def _nobody(queue: str) -> None:
    """The queue is worked off here."""
