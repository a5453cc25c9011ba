"""G1, G2: an accepted document is never lost and always cut the same, whatever is killed meanwhile."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

import psutil
import pytest

from app.core.constants import INGEST_QUEUE
from tests.trust.corpus import (
    ENDED,
    Fingerprint,
    Upload,
    documents,
    fingerprint,
    make_collection,
    pdfs,
    progress,
    texts,
    upload,
    wait_for,
)
from tests.trust.orphans import orphans, query, settle
from tests.trust.running import ended, events, long_agent, read_some
from tests.trust.serving import Platform, eventually, second_worker
from tests.trust.storm import Files, Storm

pytestmark = pytest.mark.timeout(300)
COUNT = 20
FILES = texts(COUNT)
SEED = int(os.environ.get("ORRERY_SEED", "1"))


@pytest.fixture(scope="session")
def undisturbed(served: Platform) -> Fingerprint:
    """The chunks of the same documents when nothing goes wrong."""
    with served.client() as client:
        taken = upload(client, make_collection(client, "undisturbed"), FILES)
        wait_for(client, taken, done=COUNT)
        assert {document["status"] for document in documents(client, "undisturbed")} == {"ready"}
        return fingerprint(client, "undisturbed")


def hand_in(platform: Platform, name: str, *, ended_before: int = 3) -> Upload:
    """Documents of which some have ended and some have not."""
    with platform.client() as client:
        taken = upload(client, make_collection(client, name), FILES)
        wait_for(client, taken, done=ended_before)
        assert progress(client, taken) < COUNT, "the machine was too fast to disturb it"
    return taken


def check(platform: Platform, taken: Upload, undisturbed: Fingerprint) -> None:
    """All ended well, as if nothing had happened, and nothing is left over."""
    Storm(platform).ended(taken.collection)
    with platform.client() as client:
        found = documents(client, taken.collection)
        assert {document["id"] for document in found} == set(taken.ids)
        assert [document["error"] for document in found if document["status"] != "ready"] == []
        assert fingerprint(client, taken.collection) == undisturbed
    settle(platform)
    assert orphans(platform) == []


class TestKilledWorker:
    def test_loses_and_changes_nothing(self, undisturbed: Fingerprint, platform: Platform) -> None:
        taken = hand_in(platform, "worker-killed")
        platform.kill_worker()
        check(platform, taken, undisturbed)


@pytest.fixture(scope="session")
def killed(undisturbed: Fingerprint, served: Platform) -> tuple[Upload, str, int]:
    """`orrery serve` is killed amid documents and a run, and started again.

    The documents, the run, and the last `seq` that its reader saw.
    """
    if not served.running:
        served.start()
    taken = hand_in(served, "platform-killed")
    with served.client() as client:
        run_id, seen = read_some(client, long_agent(client, "platform-killed"), count=12)
    served.kill()
    served.start()
    return taken, run_id, seen


class TestKilledPlatform:
    def test_loses_and_changes_no_document(
        self, undisturbed: Fingerprint, killed: tuple[Upload, str, int], platform: Platform
    ) -> None:
        check(platform, killed[0], undisturbed)

    def test_goes_on_with_its_runs(self, killed: tuple[Upload, str, int], platform: Platform) -> None:
        with platform.client() as client:
            run = eventually(lambda: ended(client, killed[1]), within_s=20)
        assert (run["status"], run["error"]) == ("succeeded", None)

    def test_leaves_a_log_that_goes_on_where_readers_were(
        self, killed: tuple[Upload, str, int], platform: Platform
    ) -> None:
        _, run_id, seen = killed
        with platform.client() as client:
            whole = events(client, run_id)
            rest = events(client, run_id, after=seen)
        assert [event["seq"] for event in whole] == list(range(1, len(whole) + 1))
        terminal = [event for event in whole if event["event"]["type"] in ("RUN_FINISHED", "RUN_ERROR")]
        assert terminal == [whole[-1]]
        assert whole[-1]["event"]["type"] == "RUN_FINISHED"
        assert rest == whole[seen:]
        assert seen >= 3

    def test_keeps_each_finished_step_once(self, killed: tuple[Upload, str, int], platform: Platform) -> None:
        steps = query(platform, "SELECT node_path FROM agent_run_steps WHERE run_id = $1", killed[1])
        assert len(steps) == len(set(steps)) >= 1


class TestKilledDatabase:
    def test_loses_and_changes_nothing(self, undisturbed: Fingerprint, platform: Platform) -> None:
        taken = hand_in(platform, "database-killed")
        platform.service("postgres").kill()
        check(platform, taken, undisturbed)

    def test_charges_no_document_for_it(self, platform: Platform) -> None:
        charged = "SELECT id FROM work_items WHERE error->>'code' = 'internal_error'"
        with platform.client() as client:
            make_collection(client, "not-charged")
            upload(client, "not-charged", texts(3))
            platform.service("postgres").kill()
        Storm(platform).ended("not-charged")
        assert query(platform, charged) == []


class TestKilledBroker:
    def test_loses_and_changes_nothing(self, undisturbed: Fingerprint, platform: Platform) -> None:
        """It keeps nothing on disk, so all its messages are gone."""
        taken = hand_in(platform, "broker-killed")
        platform.service("redis-server").kill()
        check(platform, taken, undisturbed)

    def test_takes_new_work_afterwards(self, platform: Platform) -> None:
        with platform.client() as client:
            taken = upload(client, make_collection(client, "after-broker"), texts(1))
            wait_for(client, taken, done=1, within_s=30)


class TestRepeatedMessages:
    def test_change_nothing(self, undisturbed: Fingerprint, platform: Platform) -> None:
        taken = hand_in(platform, "repeated", ended_before=0)
        platform.send_drain(INGEST_QUEUE, times=5)
        check(platform, taken, undisturbed)
        platform.send_drain(INGEST_QUEUE, times=5)
        with platform.client() as client:
            assert fingerprint(client, "repeated") == undisturbed


@pytest.mark.soak
@pytest.mark.timeout(900)
class TestFrozenWorker:
    def test_stores_nothing_once_another_has_its_items(
        self, undisturbed: Fingerprint, platform: Platform
    ) -> None:
        taken = hand_in(platform, "frozen")
        frozen = platform.working()
        frozen.suspend()
        with second_worker(platform):
            try:
                Storm(platform).ended("frozen")
                before = query(platform, "SELECT xmin::text || ctid::text FROM chunks ORDER BY id")
            finally:
                frozen.resume()
        check(platform, taken, undisturbed)
        assert query(platform, "SELECT xmin::text || ctid::text FROM chunks ORDER BY id") == before


def many() -> Files:
    return [*texts(130), *pdfs(65), *((f"broken-{n}.pdf", b"%PDF-1.7 cut") for n in range(5))]


@pytest.fixture(scope="session")
def calm(served: Platform) -> Fingerprint:
    """What becomes of all of them when nobody is killed."""
    if not served.running:
        served.start()
    with served.client() as client:
        taken = upload(client, make_collection(client, "calm"), many())
        wait_for(client, taken, done=len(many()), within_s=600)
        return fingerprint(client, "calm")


@pytest.mark.soak
@pytest.mark.timeout(1800)
class TestManyDocuments:
    """200 documents, while what is named is killed again and again at moments that the seed draws."""

    @pytest.mark.parametrize(
        "victim",
        ["worker tree", "worker child", "postgres", "postgres backend", "redis-server", "platform"],
    )
    def test_all_end_the_same(self, calm: Fingerprint, platform: Platform, victim: str) -> None:
        slug, chance = f"storm-{victim.replace(' ', '-')}", random.Random(f"{SEED} {victim}")
        storm = Storm(platform)
        storm.make_collection(slug)
        for start in range(0, len(many()), 50):
            storm.upload(slug, many()[start : start + 50])
        for _ in range(3):
            time.sleep(chance.uniform(0.5, 5))
            VICTIMS[victim](platform)
        storm.ended(slug)
        found = storm.documents(slug)
        assert {document["status"] for document in found} <= set(ENDED)
        assert {document["id"] for document in found} == storm.accepted
        failed = {d["external_id"]: d["error"]["code"] for d in found if d["status"] == "failed"}
        assert failed == {f"broken-{n}.pdf": "corrupt" for n in range(5)}
        with platform.client() as client:
            assert fingerprint(client, slug) == calm
        storm.settled()
        assert orphans(platform) == []


def _kill_backend(platform: Platform) -> None:
    """One of the database's processes, upon which it restarts all of them."""
    ours = "SELECT pid FROM pg_stat_activity WHERE usename = 'orrery_app'"
    busy = f"{ours} ORDER BY state = 'active' DESC LIMIT 1"
    for pid in query(platform, busy):
        os.kill(pid, signal.SIGKILL)


def _kill_platform(platform: Platform) -> None:
    platform.kill()
    platform.start()


def _kill_service(name: str) -> Callable[[Platform], None]:
    def kill(platform: Platform) -> None:
        eventually(platform.ready)
        service: psutil.Process = platform.service(name)
        service.kill()

    return kill


VICTIMS: dict[str, Callable[[Platform], None]] = {
    "worker tree": Platform.kill_worker,
    "worker child": lambda platform: platform.working().kill(),
    "postgres": _kill_service("postgres"),
    "postgres backend": _kill_backend,
    "redis-server": _kill_service("redis-server"),
    "platform": _kill_platform,
}
