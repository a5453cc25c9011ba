"""G1, G2, G3 and nothing orphaned: processes stopped at every named point, and killed at many of them."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from app.core.failpoints import POINTS
from tests.trust.corpus import Fingerprint, fingerprint
from tests.trust.gates import Gates
from tests.trust.orphans import orphans
from tests.trust.serving import Platform, open_folder
from tests.trust.storm import FLAKY, Storm, corpus

pytestmark = pytest.mark.timeout(600)
SEED = int(os.environ.get("ORRERY_SEED", "1"))
ALWAYS = frozenset({"ingest.begun", "intake.blob_stored", "run.created", "drain.claimed"})
"""Killed at in every storm: what is only reached after a death is reached by these."""
AT_THE_END = frozenset({"lease.given_back"})
COUNT = 8


@pytest.fixture(scope="module")
def stormy() -> Iterator[Platform]:
    """A platform that stops at gates; documents may be tried as often as there are points to die at."""
    with open_folder() as folder:
        gates = Gates(folder / "gates")
        settings = {
            "ORRERY_FAILPOINTS": gates.setting(FLAKY),
            "ORRERY_INGEST_MAX_ATTEMPTS": "100",
            "ORRERY_UPLOAD_GRACE_S": "5",
        }
        platform = Platform(folder / "data", settings)
        platform.start()
        try:
            yield platform
        finally:
            gates.open_all()
            if platform.running:
                platform.stop()


def weather(platform: Platform, lethal: frozenset[str], slug: str, count: int) -> tuple[Storm, Fingerprint]:
    """A storm over a day of work in the collection `slug`; what it has made of the documents."""
    storm = Storm(platform, Gates(platform.data_dir.parent / "gates"), lethal)
    with storm.blowing():
        storm.day(slug, corpus(count))
    with platform.client() as client:
        return storm, fingerprint(client, slug)


@pytest.fixture(scope="module")
def calm(stormy: Platform) -> Fingerprint:
    """The chunks of the same documents when nobody is stopped."""
    storm = Storm(stormy, Gates(stormy.data_dir.parent / "gates"), frozenset())
    storm.make_collection("calm")
    storm.upload("calm", corpus(COUNT))
    storm.settled()
    with stormy.client() as client:
        return fingerprint(client, "calm")


@pytest.fixture(scope="module")
def storm(stormy: Platform, calm: Fingerprint) -> tuple[Storm, Fingerprint]:
    """Killed at the usual points and at three more, which the seed draws."""
    drawn = random.Random(SEED).sample(sorted(set(POINTS) - ALWAYS - AT_THE_END), 3)
    return weather(stormy, ALWAYS | set(drawn), "stormy", COUNT)


class TestStorm:
    @pytest.mark.parametrize("point", sorted(set(POINTS) - AT_THE_END))
    def test_stops_at(self, storm: tuple[Storm, Fingerprint], point: str) -> None:
        assert point in storm[0].reached

    def test_kills_where_it_was_told_to(self, storm: tuple[Storm, Fingerprint]) -> None:
        assert set(storm[0].killed) == storm[0].lethal

    def test_loses_no_document(self, storm: tuple[Storm, Fingerprint]) -> None:
        assert storm[0].missing() == set()

    def test_takes_no_half_of_a_request(self, storm: tuple[Storm, Fingerprint]) -> None:
        assert storm[0].halves == []

    def test_lets_only_the_broken_document_fail(self, storm: tuple[Storm, Fingerprint]) -> None:
        found = {d["external_id"]: d["error"] for d in storm[0].documents("stormy") if d["error"]}
        assert {name: error["code"] for name, error in found.items()} == {"broken.pdf": "corrupt"}

    def test_changes_no_chunk(self, storm: tuple[Storm, Fingerprint], calm: Fingerprint) -> None:
        assert storm[1] == calm

    def test_leaves_nothing_orphaned(self, storm: tuple[Storm, Fingerprint], stormy: Platform) -> None:
        assert orphans(stormy) == []
