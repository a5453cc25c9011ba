"""G1, G2: an accepted document is never lost and always cut the same, whoever is killed meanwhile."""

from __future__ import annotations

import pytest
from redis import Redis

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
from tests.trust.running import ended, events, long_agent, read_some
from tests.trust.serving import Platform, eventually

pytestmark = pytest.mark.timeout(300)
COUNT = 30
FILES = texts(COUNT)


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
    with platform.client() as client:
        wait_for(client, taken, done=COUNT)
        found = documents(client, taken.collection)
        assert {document["id"] for document in found} == set(taken.ids)
        assert [document["error"] for document in found if document["status"] != "ready"] == []
        assert fingerprint(client, taken.collection) == undisturbed


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
        run_id, seen = read_some(client, long_agent(client, "platform-killed"))
    served.kill()
    served.start()
    return taken, run_id, seen


class TestKilledPlatform:
    def test_loses_and_changes_no_document(
        self, undisturbed: Fingerprint, killed: tuple[Upload, str, int], platform: Platform
    ) -> None:
        check(platform, killed[0], undisturbed)

    def test_ends_its_runs_as_failed(self, killed: tuple[Upload, str, int], platform: Platform) -> None:
        with platform.client() as client:
            run = eventually(lambda: ended(client, killed[1]), within_s=20)
        assert (run["status"], run["error"]["code"]) == ("failed", "process_died")

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
        assert whole[-1]["event"]["code"] == "process_died"
        assert rest == whole[seen:]
        assert seen >= 3


class TestWipedBroker:
    def test_loses_and_changes_nothing(self, undisturbed: Fingerprint, platform: Platform) -> None:
        taken = hand_in(platform, "broker-wiped")
        with Redis.from_url(platform.services()["redis_url"]) as broker:
            broker.flushall()
        check(platform, taken, undisturbed)

    def test_takes_new_work_afterwards(self, platform: Platform) -> None:
        with Redis.from_url(platform.services()["redis_url"]) as broker:
            broker.flushall()
        with platform.client() as client:
            taken = upload(client, make_collection(client, "after-wipe"), texts(1))
            wait_for(client, taken, done=1, within_s=20)


@pytest.mark.soak
@pytest.mark.timeout(900)
class TestManyDocuments:
    def test_all_end_the_same_however_often_the_worker_is_killed(self, platform: Platform) -> None:
        files = texts(80) + pdfs(40) + [(f"broken-{n}.pdf", b"%PDF-1.7 cut") for n in range(5)]
        with platform.client() as client:
            calm = upload(client, make_collection(client, "calm"), files)
            wait_for(client, calm, done=len(files), within_s=300)
            taken = upload(client, make_collection(client, "stormy"), files)
            for killed in range(1, 4):
                wait_for(client, taken, done=killed * len(files) // 5, within_s=120)
                platform.kill_worker()
            wait_for(client, taken, done=len(files), within_s=300)
            found = documents(client, "stormy")
            assert {document["id"] for document in found} == set(taken.ids)
            assert {document["status"] for document in found} <= set(ENDED)
            failed = {d["external_id"]: d["error"]["code"] for d in found if d["status"] == "failed"}
            assert failed == {f"broken-{n}.pdf": "corrupt" for n in range(5)}
            assert fingerprint(client, "stormy") == fingerprint(client, "calm")
