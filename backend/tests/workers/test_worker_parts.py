"""A worker process: what it opens, what it takes over, and what its messages say."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from redis import Redis
from sqlalchemy.exc import DBAPIError

from app.core.config import get_settings
from app.core.constants import INGEST_QUEUE
from app.core.ids import new_id
from app.db.postgres.models.jobs import WorkKind, WorkState
from app.db.postgres.repositories.work import Claim
from app.embedded import Services
from app.resources import Resources
from app.workers import celery_app, tasks
from app.workers.job_manager import make_drain, open_drain
from tests.fixtures import MASTER_KEY, settings_for
from tests.prose import prose
from tests.workers.world import World

ON_SESSION_LOOP = pytest.mark.asyncio(loop_scope="session")


async def nobody(queue: str) -> None:
    """Nobody is woken."""


@pytest.fixture
def worker_environment(
    services: Services, services_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """What `orrery serve` gives its worker."""
    given = {
        "ORRERY_DATA_DIR": str(services_dir / "shared"),
        "ORRERY_BLOB_URL": str(tmp_path / "blobs"),
        "ORRERY_DATABASE_URL": services.database_url,
        "ORRERY_REDIS_URL": services.redis_url,
        "ORRERY_MASTER_KEY": MASTER_KEY,
        "ORRERY_WORKER_ID": "local:worker-parts",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    yield
    if tasks._process is not None:
        tasks._process.close()
        tasks._process = None
    get_settings.cache_clear()


class TestDrain:
    @ON_SESSION_LOOP
    async def test_handles_every_kind_of_work_that_is_queued(self, resources: Resources) -> None:
        drain = make_drain(resources, "local:w")
        assert set(drain.handlers) == set(WorkKind)
        assert all(inspect.iscoroutinefunction(handler) for handler in drain.handlers.values())

    @ON_SESSION_LOOP
    async def test_gives_up_on_nothing_but_ingestion(self, resources: Resources) -> None:
        drain = make_drain(resources, "local:w")
        assert set(drain.handlers) - drain.endless == {WorkKind.INGEST}

    @ON_SESSION_LOOP
    async def test_takes_over_at_once_what_its_dead_predecessor_held(
        self, world: World, services: Services, services_dir: Path
    ) -> None:
        owner = f"local:{new_id().hex}"
        accepted = await world.put(a=prose(1), b=prose(2))
        await abandoned(world, owner)
        document = accepted.items[0].document_id
        assert document
        assert [item.state for item in await world.items(document)] == [WorkState.RUNNING]
        settings = settings_for(services, services_dir, blobs=world.blob_folder)
        urls = {"database_url": services.database_url, "redis_url": services.redis_url}
        async with open_drain(settings, **urls, wake=nobody, owner=owner) as drain:
            taken: list[UUID] = []

            async def take(claim: Claim) -> None:
                taken.append(claim.subject_id)

            drain.handlers = {WorkKind.INGEST: take}
            await drain.run(INGEST_QUEUE)
        assert document in taken


async def abandoned(world: World, owner: str) -> None:
    """Everything that is due is held by a process that is gone."""
    drain = world.drain(owner=owner, handlers={"ingest": gone}, lease_s=600.0)
    await drain.run(INGEST_QUEUE)


async def gone(claim: object) -> None:
    raise asyncio.CancelledError


class TestProcess:
    def test_opens_with_the_next_task_where_the_database_was_away(
        self, worker_environment: None, services: Services, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ORRERY_DATABASE_URL", "postgresql://orrery_app:x@127.0.0.1:9/orrery")
        get_settings.cache_clear()
        with pytest.raises(DBAPIError, match="onnect"):
            tasks.drain(f"q-{new_id().hex}")
        monkeypatch.setenv("ORRERY_DATABASE_URL", services.database_url)
        get_settings.cache_clear()
        tasks.drain(f"q-{new_id().hex}")
        assert tasks._process is not None

    def test_keeps_one_loop_for_all_its_tasks(self, worker_environment: None) -> None:
        tasks.drain(f"q-{new_id().hex}")
        first = tasks._process
        tasks.drain(f"q-{new_id().hex}")
        assert tasks._process is first


class TestMessages:
    def test_name_a_queue_and_nothing_else(self, services: Services) -> None:
        celery_app.configure(services.redis_url)
        queue = f"q-{new_id().hex}"
        asyncio.run(celery_app.wake(queue))
        with Redis.from_url(services.redis_url) as broker:
            (raw,) = broker.lrange(queue, 0, -1)
            broker.delete(queue)
        message = json.loads(raw)
        assert message["content-type"] == "application/json"
        assert message["headers"]["task"] == "drain"
        assert message["headers"]["argsrepr"] == f"['{queue}']"
        assert message["headers"]["expires"]

    def test_in_other_formats_are_refused(self, services: Services) -> None:
        celery_app.configure(services.redis_url)
        assert celery_app.app.conf.accept_content == ["json"]
