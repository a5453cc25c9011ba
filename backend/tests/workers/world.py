"""One collection and the worker's parts around it, without Celery, on an embedder that needs no model."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import pytest_asyncio
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.constants import INGEST_QUEUE
from app.core.ids import new_id
from app.db.postgres.models.jobs import WorkItem, WorkKind
from app.db.postgres.models.rag import Document, DocumentStatus
from app.db.session import Tenant
from app.embedded import Services
from app.rag.types import Dense
from app.resources import Resources, open_resources
from app.services.collection_service import CollectionService
from app.services.document_service import DocumentService
from app.services.erasure_service import ErasureService
from app.services.index_service import IndexService
from app.services.ingestion_service import IngestionService
from app.services.intake_service import Accepted, Incoming, IntakeService
from app.services.job_service import Drain
from app.services.rag_service import Query, RagService, SearchMode
from tests.factories import Factory
from tests.fixtures import settings_for

Hook = Callable[[DocumentStatus], Awaitable[None]]


@dataclass(slots=True)
class HashedWords:
    """An embedder without a model: the words' hashes, added up. `calls` are the batches it was given."""

    name: str = "test/hashed-words"
    dimensions: int = 16
    ready: bool = True
    calls: list[list[str]] = field(default_factory=list)

    async def embed(self, texts: Sequence[str]) -> Dense:
        self.calls.append(list(texts))
        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, words in zip(rows, texts, strict=True):
            for word in words.lower().split():
                row[blake2b(word.strip(".").encode(), digest_size=1).digest()[0] % self.dimensions] += 1
            row /= max(1e-9, float(np.linalg.norm(row)))
        return rows


@dataclass(frozen=True, slots=True)
class Statistics:
    """What keyword search knows of an index."""

    chunks: int
    terms: int
    frequencies: dict[int, int]


@dataclass(slots=True)
class World:
    resources: Resources
    tenant: Tenant
    user: UUID
    collection: str
    blob_folder: Path
    embedder: HashedWords = field(default_factory=HashedWords)

    async def put(self, collection: str | None = None, /, **texts: str) -> Accepted:
        """Hands texts in; their names are their external ids."""
        return await self.take(
            *(
                Incoming(name, _once(body.encode()), media_type="text/plain", title=name, exactly_text=True)
                for name, body in texts.items()
            ),
            collection=collection,
        )

    async def take(self, *incoming: Incoming, collection: str | None = None) -> Accepted:
        async def each() -> AsyncIterator[Incoming]:
            for one in incoming:
                yield one

        intake = IntakeService(self.resources.database, self.tenant, self.resources.blobs, 10 * 2**20)
        return await intake.accept(collection or self.collection, each())

    async def new_collection(self, name: str) -> str:
        async with self.work() as session:
            made = await CollectionService(session, self.tenant, self.embedder).create(name)
            return str(made.collection.id)

    def ingestion(self, **changes: Any) -> IngestionService:
        parts: dict[str, Any] = {"parse": self.resources.parse, "embedder": self.embedder, "batch_size": 2}
        return IngestionService(
            database=self.resources.database, **{"blobs": self.resources.blobs} | parts | changes
        )

    def drain(self, *, owner: str = "local:worker", **changes: Any) -> Drain:
        """A worker. `changes` are parts of its ingestion, or fields of the drain."""
        fields = {name: changes.pop(name) for name in list(changes) if name in Drain.__dataclass_fields__}
        blobs = changes.get("blobs", self.resources.blobs)
        ingestion = self.ingestion(**changes)
        erasure = ErasureService(self.resources.database, blobs)
        handlers = {
            "ingest": ingestion.ingest,
            WorkKind.REWEIGH: IndexService(self.resources.database).reweigh,
            "erase_document": erasure.erase_document,
            "erase_collection": erasure.erase_collection,
            WorkKind.ERASE_BLOB: erasure.erase_blob,
            WorkKind.ERASE_UPLOAD: erasure.erase_upload,
        }
        parts: dict[str, Any] = {
            "database": self.resources.database,
            "handlers": handlers,
            "failed": ingestion.failed,
            "owner": owner,
            "endless": frozenset(handlers) - {WorkKind.INGEST},
        }
        return Drain(**parts | fields)

    async def work_off(self, **changes: Any) -> None:
        """Works until nothing is left, not waiting for retries."""
        async with asyncio.timeout(60):
            while await self.drain(**changes).run(INGEST_QUEUE):
                await self.hurry()

    async def hurry(self) -> None:
        """Whatever waits, for a retry or for a dead worker's lease, is due now; uploads keep their time."""
        await self.all_due("kind <> 'erase_upload'")

    async def all_due(self, which: str = "true") -> None:
        statement = (
            "UPDATE work_items SET due_at = now(), lease_until = least(lease_until, now()) "
            f"WHERE state IN ('queued', 'running') AND {which}"
        )
        async with self.work() as session:
            await session.execute(text(statement))

    async def queue(self, kind: str, subject_id: UUID, **payload: Any) -> UUID:
        """Adds a work item."""
        item = WorkItem(
            org_id=self.tenant.org_id,
            id=new_id(),
            project_id=self.tenant.project,
            queue=INGEST_QUEUE,
            kind=kind,
            subject_id=subject_id,
            payload=payload,
        )
        async with self.work() as session:
            session.add(item)
        return item.id

    async def delete(self, document_id: UUID) -> None:
        async with self.work() as session:
            await DocumentService(session, self.tenant, self.resources.blobs).delete(document_id)

    async def document(self, external_id: str) -> Document:
        async with self.work() as session:
            statement = select(Document).where(
                Document.external_id == external_id, Document.deleted_at.is_(None)
            )
            return (await session.execute(statement)).scalar_one()

    async def items(self, subject: UUID) -> list[WorkItem]:
        async with self.work() as session:
            rows = select(WorkItem).where(WorkItem.subject_id == subject).order_by(WorkItem.id)
            return list((await session.execute(rows)).scalars())

    async def fingerprint(self) -> list[tuple[Any, ...]]:
        """What ingestion made of each searched document, without ids."""
        query = """
            SELECT d.external_id, c.ordinal, c.text, c.start_offset, c.end_offset, e.visible, e.dense::text
            FROM documents d JOIN chunks c ON c.document_version_id = d.version_id
            LEFT JOIN vector_entries e ON e.chunk_id = c.id WHERE d.deleted_at IS NULL
            ORDER BY 1, 2
        """
        async with self.work() as session:
            return [tuple(row) for row in await session.execute(text(query))]

    async def statistics(self, collection: str | None = None) -> Statistics:
        async with self.work() as session:
            stats = await CollectionService(session, self.tenant, self.embedder).get(
                collection or self.collection
            )
            rows = await session.execute(
                text("SELECT term, documents FROM vector_terms WHERE index_id = :index"),
                {"index": stats.index.id},
            )
            return Statistics(
                stats.index.chunk_count, stats.index.term_total, {term: count for term, count in rows}
            )

    async def count(self, table: str, where: str = "true", **values: Any) -> int:
        async with self.work() as session:
            found = await session.execute(text(f"SELECT count(*) FROM {table} WHERE {where}"), values)
            return int(found.scalar_one())

    async def traces(self, document_id: UUID) -> Counter[str]:
        """In which tables the document has how many rows; files and blobs are those of the project."""
        found: Counter[str] = Counter()
        async with self.work() as session:
            tables = await session.execute(
                text(
                    "SELECT relname FROM pg_attribute JOIN pg_class c ON c.oid = attrelid "
                    "WHERE attname = 'document_id' AND NOT relispartition AND relkind IN ('r', 'p')"
                )
            )
            queries = {table: "document_id = :id" for table in tables.scalars()} | {"documents": "id = :id"}
        for table, where in queries.items():
            found[table] = await self.count(table, where, id=document_id)
        found["files"] = await self.count("files")
        found["blobs"] = len(self.blobs())
        return +found

    def blobs(self) -> list[Path]:
        folder = self.blob_folder / str(self.tenant.org_id)
        return [path for path in folder.rglob("*") if path.is_file()]

    async def search(self, words: str, mode: SearchMode = SearchMode.HYBRID) -> list[str]:
        """External ids of what is found, best first."""
        found = await RagService(self.resources.database, self.tenant, self.embedder).search(
            Query(words, [self.collection], mode=mode, top_k=50)
        )
        return list(dict.fromkeys(result.found.external_id for result in found))

    @asynccontextmanager
    async def work(self) -> AsyncIterator[AsyncSession]:
        async with self.resources.database.unit_of_work(self.tenant) as session:
            yield session


def before_each_write(monkeypatch: pytest.MonkeyPatch, hook: Hook) -> None:
    """Calls `hook(stage)` before each transaction in which ingestion writes to a document."""
    writing = IngestionService._writing

    @asynccontextmanager
    async def hooked(self: IngestionService, claim: Any, stage: DocumentStatus) -> AsyncIterator[Any]:
        await hook(stage)
        async with writing(self, claim, stage) as opened:
            yield opened

    monkeypatch.setattr(IngestionService, "_writing", hooked)


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


@asynccontextmanager
async def open_world_resources(
    services: Services, services_dir: Path, blobs: Path
) -> AsyncIterator[Resources]:
    async def nobody_wakes(queue: str) -> None:
        """The tests drain by hand."""

    async with open_resources(
        settings_for(services, services_dir, blobs=blobs),
        database_url=services.database_url,
        redis_url=services.redis_url,
        wake=nobody_wakes,
        owner="local:tests",
    ) as opened:
        yield opened


@pytest.fixture(scope="session")
def blob_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("blobs")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def resources(services: Services, services_dir: Path, blob_folder: Path) -> AsyncIterator[Resources]:
    async with open_world_resources(services, services_dir, blob_folder) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def world(resources: Resources, blob_folder: Path) -> World:
    return await make_world(resources, blob_folder)


async def make_world(resources: Resources, blobs: Path) -> World:
    """An organization of its own with an empty collection; what other tests left to do is set aside."""
    member = await Factory(resources).member()
    async with resources.database.system_work() as session:
        await session.execute(
            text("UPDATE work_items SET state = 'cancelled' WHERE state IN ('queued', 'running')")
        )
    world = World(resources, member.tenant, member.user_id, "", blobs)
    world.collection = await world.new_collection("Texts")
    return world
