"""SIGTERM amid work: nothing is lost, nothing is charged, nobody is left; the next start goes on."""

from __future__ import annotations

import pytest

from tests.trust.corpus import make_collection, texts, upload, wait_for
from tests.trust.gates import Gates
from tests.trust.orphans import orphans, query
from tests.trust.serving import Platform, processes_in
from tests.trust.storm import Storm

pytestmark = [pytest.mark.timeout(300), pytest.mark.soak]


class TestStoppedPlatform:
    def test_goes_on_where_it_was(self, platform: Platform) -> None:
        with platform.client() as client:
            taken = upload(client, make_collection(client, "stopped"), texts(20))
            wait_for(client, taken, done=3)
        assert platform.stop() == 0
        assert list(processes_in(platform.data_dir.parent)) == []
        platform.start()
        storm = Storm(platform)
        storm.ended("stopped")
        assert {document["status"] for document in storm.documents("stopped")} == {"ready"}
        charged = "SELECT max(attempts + deaths) FROM work_items WHERE subject_id = ANY($1::uuid[])"
        assert query(platform, charged, taken.ids) == [1]
        storm.settled()
        assert orphans(platform) == []

    def test_that_is_killed_after_giving_back_starts_again(self, platform: Platform, gates: Gates) -> None:
        with platform.client() as client:
            upload(client, make_collection(client, "given-back"), texts(5))
        gates.shut("lease.given_back")
        assert platform.process
        platform.process.terminate()
        assert gates.caught("lease.given_back") == platform.process.pid
        platform.kill()
        gates.open_all()
        platform.start()
        storm = Storm(platform)
        storm.ended("given-back")
        storm.settled()
        assert orphans(platform) == []
