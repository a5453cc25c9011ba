"""G1 with connections that break, half break, or say nothing: amid ingestion, and well again afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import URL, make_url

from app.core.constants import INGEST_QUEUE
from app.db.postgres.models.jobs import WorkState
from app.db.postgres.models.rag import DocumentStatus
from app.embedded import Services
from app.resources import Resources, open_resources
from tests.fixtures import JWT_KEY, MASTER_KEY, settings_for
from tests.prose import prose
from tests.trust.corpus import Fingerprint, fingerprint, texts
from tests.trust.orphans import orphans
from tests.trust.proxy import Outside, Proxy, open_proxy, proxy_outside
from tests.trust.serving import Platform, open_folder
from tests.trust.storm import Storm
from tests.workers.world import World, before_each_write, make_world

pytestmark = pytest.mark.timeout(300)
Fault = Callable[[Proxy], None]


def mute(proxy: Proxy) -> None:
    proxy.mute = True


def delay(proxy: Proxy) -> None:
    proxy.latency_s = 0.05


FAULTS: dict[str, Fault] = {
    "cut": Proxy.cut,
    "dropped": Proxy.drop,
    "half-closed": Proxy.half_close,
    "black-holed": mute,
    "slow": delay,
}


def through(url: str, port: int) -> str:
    return text_of(make_url(url).set(host="127.0.0.1", port=port))


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("blobs")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def proxy(services: Services) -> AsyncIterator[Proxy]:
    place = make_url(services.database_url)
    async with open_proxy(str(place.host), int(place.port or 5432)) as proxy:
        yield proxy


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def proxied(
    services: Services, services_dir: Path, blobs: Path, proxy: Proxy
) -> AsyncIterator[Resources]:
    """What a worker has open whose database is behind `proxy`, and whom a second without answer is enough."""
    settings = settings_for(services, services_dir, blobs=blobs)
    settings.database_timeout_s = 1

    async def nobody_wakes(queue: str) -> None:
        """Drained by hand."""

    async with open_resources(
        settings,
        database_url=through(services.database_url, proxy.port),
        redis_url=services.redis_url,
        wake=nobody_wakes,
        owner="local:proxied",
    ) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def far(proxied: Resources, proxy: Proxy, blobs: Path) -> AsyncIterator[World]:
    proxy.restore()
    yield await make_world(proxied, blobs)
    proxy.restore()


@pytest.mark.asyncio(loop_scope="session")
class TestDatabaseConnection:
    @pytest.mark.parametrize("fault", FAULTS)
    async def test_that_fails_amid_ingestion_costs_no_document(
        self, far: World, proxy: Proxy, fault: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writes = 0

        async def fail(stage: DocumentStatus) -> None:
            nonlocal writes
            writes += 1
            if writes == 8:
                FAULTS[fault](proxy)
                asyncio.get_running_loop().call_later(0.5, proxy.restore)

        before_each_write(monkeypatch, fail)
        accepted = await far.put(**{f"d{n}": prose(n) for n in range(6)})
        async with asyncio.timeout(60):
            while await self.open_documents(far):
                await drain_as_told(far)
        items = [(await far.items(one.document_id))[0] for one in accepted.items if one.document_id]
        assert {item.state for item in items} == {WorkState.SUCCEEDED}
        assert max(item.attempts for item in items) <= 2  # charged at most where it looks like a death
        assert await far.count("chunks") == await far.count("vector_entries", "visible") >= 24

    async def open_documents(self, far: World) -> int:
        try:
            return await far.count("documents", "status NOT IN ('ready', 'failed')")
        except Exception:  # the fault is still on
            await asyncio.sleep(0.1)
            return 1


async def drain_as_told(far: World) -> None:
    """What Celery does: a drain that fails is woken again."""
    try:
        await far.drain().run(INGEST_QUEUE)
        await far.hurry()
    except Exception:
        await asyncio.sleep(0.1)


@dataclass(frozen=True, slots=True)
class Wired:
    """A platform between whose processes and services stand proxies."""

    platform: Platform
    postgres: Outside
    redis: Outside


@pytest.fixture(scope="module")
def wired(served: Platform) -> Iterator[Wired]:
    """Its database and its broker are others on the servers of `served`."""
    if not served.running:
        served.start()
    found = served.services()
    owner, app, redis = (make_url(found[name]) for name in ("migration_url", "database_url", "redis_url"))
    asyncio.run(_fresh_database(found["migration_url"]))
    with ExitStack() as stack:
        postgres = stack.enter_context(proxy_outside("127.0.0.1", int(app.port or 0)))
        broker = stack.enter_context(proxy_outside("127.0.0.1", int(redis.port or 0)))
        folder = stack.enter_context(open_folder())
        settings = {
            "ORRERY_DATABASE_URL": through(text_of(app.set(database="wired")), postgres.port),
            "ORRERY_DATABASE_MIGRATION_URL": text_of(owner.set(database="wired")),
            "ORRERY_REDIS_URL": through(text_of(redis.set(database="1")), broker.port),
            "ORRERY_MASTER_KEY": MASTER_KEY,
            "ORRERY_JWT_KEY": JWT_KEY,
            "ORRERY_DATABASE_TIMEOUT_S": "2",
            "ORRERY_UPLOAD_GRACE_S": "5",
        }
        platform = Platform(folder / "data", settings)
        (folder / "data").mkdir()
        platform.start()
        try:
            yield Wired(platform, postgres, broker)
        finally:
            platform.stop()


async def _fresh_database(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("DROP DATABASE IF EXISTS wired WITH (FORCE)")
    await connection.execute("CREATE DATABASE wired")
    await connection.close()


def text_of(url: URL) -> str:
    return url.render_as_string(hide_password=False)


@pytest.fixture(scope="module")
def calm(wired: Wired) -> Fingerprint:
    return ingested(wired.platform, "calm")


def ingested(platform: Platform, slug: str, *, meanwhile: Callable[[], None] | None = None) -> Fingerprint:
    """What becomes of 30 documents."""
    storm = Storm(platform)
    storm.make_collection(slug)
    for start in range(0, 30, 10):
        storm.upload(slug, texts(30)[start : start + 10])
        if meanwhile and start == 10:
            meanwhile()
    storm.ended(slug)
    assert {document["id"] for document in storm.documents(slug)} == storm.accepted
    assert {document["status"] for document in storm.documents(slug)} == {"ready"}
    storm.settled()
    assert orphans(platform) == []
    with platform.client() as client:
        return fingerprint(client, slug)


@pytest.mark.soak
class TestPlatform:
    @pytest.mark.parametrize("fault", FAULTS)
    @pytest.mark.parametrize("service", ["postgres", "redis"])
    def test_survives_its_connections(
        self, wired: Wired, calm: Fingerprint, service: str, fault: str
    ) -> None:
        """Longer than a lease lasts, and longer than anybody waits for an answer."""
        outside = wired.postgres if service == "postgres" else wired.redis

        def fail() -> None:
            outside.tell(FAULTS[fault])
            time.sleep(6)
            outside.tell(Proxy.restore)

        assert ingested(wired.platform, f"{service}-{fault}", meanwhile=fail) == calm
