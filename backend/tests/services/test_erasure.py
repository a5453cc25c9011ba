"""Deletion: whatever was deleted leaves no row, vector or blob, and no late writer brings it back."""

import asyncio
from collections import Counter
from uuid import UUID

import pytest
from sqlalchemy import text

from app.core.blobs import Blobs
from app.core.constants import INGEST_QUEUE
from app.core.errors import NotFound, Unavailable
from app.core.ids import new_id
from app.db.postgres.models.agents import Agent
from app.db.postgres.models.jobs import WorkState
from app.db.postgres.models.rag import DocumentStatus
from app.db.postgres.repositories.agents import Agents
from app.db.postgres.repositories.node_cache import CachedNodes
from app.services.collection_service import CollectionService
from app.services.document_service import DocumentService
from tests.prose import prose
from tests.workers.world import World, before_each_write

pytestmark = pytest.mark.asyncio(loop_scope="session")
WRITES = 5
"""Transactions that ingestion makes for a document of four chunks, embedded two at a time."""


async def ready(world: World, name: str = "doc", seed: int = 1) -> UUID:
    await world.put(**{name: prose(seed)})
    await world.work_off()
    return (await world.document(name)).id


class Refusing(Blobs):
    """A blob store that does not delete until it is `mended`."""

    mended = False

    async def delete(self, key: str) -> None:
        if not Refusing.mended:
            raise Unavailable("The blob storage does not answer.")
        await super().delete(key)


class TestDeletedDocument:
    async def test_is_hidden_at_once(self, world: World) -> None:
        document = await ready(world)
        await world.delete(document)
        assert await world.search("lantern harbour") == []
        async with world.work() as session:
            with pytest.raises(NotFound):
                await DocumentService(session, world.tenant, world.resources.blobs).get(document)

    async def test_leaves_nothing_in_any_table_or_folder(self, world: World) -> None:
        document = await ready(world)
        assert await world.traces(document) == {
            "documents": 1,
            "document_versions": 1,
            "chunks": 4,
            "vector_entries": 4,
            "files": 1,
            "blobs": 1,
        }
        await world.delete(document)
        await world.work_off()
        assert await world.traces(document) == Counter()
        assert await world.count("vector_terms") == 0

    async def test_takes_along_results_of_nodes_that_hold_its_text(self, world: World) -> None:
        first, second = await ready(world, "one"), await ready(world, "two", seed=2)
        agent = Agent(org_id=world.tenant.org_id, id=new_id(), project_id=world.tenant.project)
        agent.slug, agent.name, agent.draft = "a", "A", {}
        async with world.work() as session:
            await Agents(session, world.tenant).add(agent)
            cached = CachedNodes(session, world.tenant)
            for document in (first, second):
                await cached.keep(
                    document, agent.id, '{"text": "..."}', documents=frozenset({document}), ttl_s=600
                )
        await world.delete(first)
        async with world.work() as session:
            late = CachedNodes(session, world.tenant)
            await late.keep(new_id(), agent.id, "{}", documents=frozenset({first, second}), ttl_s=600)
        await world.work_off()
        async with world.work() as session:
            assert await CachedNodes(session, world.tenant).find(first) is None
            assert await CachedNodes(session, world.tenant).find(second) == {"text": "..."}
        assert await world.count("agent_node_cache") == 1

    async def test_leaves_its_neighbours_alone(self, world: World) -> None:
        first, second = await ready(world, "one"), await ready(world, "two", seed=2)
        before = await world.traces(second)
        await world.delete(first)
        await world.work_off()
        after = await world.traces(second)
        assert after == before - Counter(files=1, blobs=1)
        assert await world.search("lantern harbour") == ["two"]

    async def test_makes_room_for_one_of_the_same_name(self, world: World) -> None:
        first = await ready(world)
        await world.delete(first)
        second = await ready(world)
        assert first != second
        await world.work_off()
        assert await world.search("lantern harbour") == ["doc"]
        assert (await world.traces(first))["chunks"] == 0

    async def test_twice_is_not_found(self, world: World) -> None:
        document = await ready(world)
        await world.delete(document)
        with pytest.raises(NotFound):
            await world.delete(document)

    @pytest.mark.parametrize("write", range(WRITES))
    async def test_during_each_stage_cannot_be_restored_by_a_late_writer(
        self, world: World, monkeypatch: pytest.MonkeyPatch, write: int
    ) -> None:
        writes = 0
        accepted = await world.put(doc=prose(1))
        document = accepted.items[0].document_id
        assert document

        async def erase_now(stage: DocumentStatus) -> None:
            nonlocal writes
            writes += 1
            if writes == write + 1:
                await world.delete(document)
                await world.drain(owner="local:eraser").run(INGEST_QUEUE)
                assert await world.traces(document) == Counter()

        before_each_write(monkeypatch, erase_now)
        await world.drain().run(INGEST_QUEUE)
        assert writes == write + 1
        assert await world.traces(document) == Counter()
        assert await world.count("vector_terms") == 0
        assert (await world.statistics()).chunks == 0

    async def test_that_was_never_worked_on_is_gone_too(self, world: World) -> None:
        accepted = await world.put(doc=prose(1))
        document = accepted.items[0].document_id
        assert document
        await world.delete(document)
        await world.work_off()
        assert await world.traces(document) == Counter()
        states = {item.kind: item.state for item in await world.items(document)}
        assert states == {"ingest": WorkState.CANCELLED, "erase_document": WorkState.SUCCEEDED}


class TestFailingErasure:
    async def test_is_repeated_until_the_store_obeys(self, world: World) -> None:
        """Longer than anything else would be: what was deleted must go."""
        document = await ready(world)
        await world.delete(document)
        Refusing.mended = False
        refusing = Refusing(world.resources.blobs.store)
        for _ in range(6):
            await world.drain(blobs=refusing).run(INGEST_QUEUE)
            await world.hurry()
        (item,) = [one for one in await world.items(document) if one.kind == "erase_document"]
        assert (item.state, item.attempts) == (WorkState.QUEUED, 0)  # no failure of its own
        assert item.error
        assert item.error["code"] == "unavailable"
        assert len(world.blobs()) == 1
        Refusing.mended = True
        await world.drain(blobs=refusing).run(INGEST_QUEUE)
        assert await world.traces(document) == Counter()

    async def test_keeps_the_rows_until_the_bytes_are_gone(self, world: World) -> None:
        document = await ready(world)
        await world.delete(document)
        Refusing.mended = False
        await world.drain(blobs=Refusing(world.resources.blobs.store)).run(INGEST_QUEUE)
        traces = await world.traces(document)
        assert (traces["documents"], traces["blobs"], traces["vector_entries"]) == (1, 1, 0)

    async def test_does_not_come_at_once_again_and_again(self, world: World) -> None:
        document = await ready(world)
        await world.delete(document)
        Refusing.mended = False
        drain = world.drain(blobs=Refusing(world.resources.blobs.store))
        assert await drain.run(INGEST_QUEUE) == 1
        assert await drain.run(INGEST_QUEUE) == 0

    async def test_whose_worker_died_is_taken_up_by_another(self, world: World) -> None:
        document = await ready(world)
        await world.delete(document)
        for _ in range(5):
            async with world.work() as session:
                await session.execute(
                    text(
                        "UPDATE work_items SET state = 'running', attempts = attempts + 1, "
                        "fence = fence + 1, lease_until = now() - interval '1 second' "
                        "WHERE kind = 'erase_document'"
                    )
                )
        await world.drain().run(INGEST_QUEUE)
        assert await world.traces(document) == Counter()


class TestDeletedCollection:
    async def delete(self, world: World) -> None:
        async with world.work() as session:
            await CollectionService(session, world.tenant, world.embedder).delete(world.collection)

    async def test_leaves_nothing(self, world: World) -> None:
        await world.put(**{f"d{n}": prose(n, sentences=20) for n in range(5)})
        await world.work_off()
        await world.put(late=prose(9))
        await self.delete(world)
        await world.work_off()
        for table in ("collections", "documents", "document_versions", "chunks", "files", "index_versions"):
            assert await world.count(table) == 0, table
        for table in ("vector_entries", "vector_terms"):
            assert await world.count(table) == 0, table
        assert world.blobs() == []

    async def test_is_hidden_at_once(self, world: World) -> None:
        await ready(world)
        await self.delete(world)
        with pytest.raises(NotFound):
            await world.search("lantern")
        with pytest.raises(NotFound):
            await world.put(more=prose(2))

    async def test_takes_nothing_in_while_it_goes(self, world: World) -> None:
        """An upload that began before the deletion either counts or is refused."""
        results = await asyncio.gather(
            world.put(a=prose(1)), self.delete(world), world.put(b=prose(2)), return_exceptions=True
        )
        assert all(not isinstance(one, BaseException) or isinstance(one, NotFound) for one in results)
        await world.work_off()
        assert await world.count("documents") == await world.count("files") == 0
        assert world.blobs() == []

    async def test_leaves_other_collections_alone(self, world: World) -> None:
        other = await world.new_collection("Other")
        await world.put(other, kept=prose(1))
        await world.work_off()
        await self.delete(world)
        await world.work_off()
        assert (await world.statistics(other)).chunks == 4
        assert len(world.blobs()) == 1
