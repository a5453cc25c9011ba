"""G1, G2, G3 and nothing orphaned: processes stopped at every named point, and killed at many of them."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass

import pytest

from app.core.failpoints import POINTS
from tests.trust.corpus import Fingerprint, fingerprint
from tests.trust.orphans import orphans
from tests.trust.serving import Platform
from tests.trust.storm import Storm, corpus

pytestmark = pytest.mark.timeout(1800)
SEED = int(os.environ.get("ORRERY_SEED", "1"))
ALWAYS = frozenset({"ingest.begun", "intake.blob_stored", "run.created"})
"""Killed at in every storm: what is only reached after a death is reached by these."""
AT_THE_END = frozenset({"lease.given_back"})
"""Reached when the platform is told to stop: see `test_stopped_platform.py`."""
IN_WORKERS = ("drain", "ingest", "reweigh", "erase")


@dataclass(frozen=True, slots=True)
class Weathered:
    """What a storm has left of a day of work, and what the same documents become on a calm one."""

    storm: Storm
    platform: Platform
    calm: Fingerprint
    stormy: Fingerprint


def weather(platform: Platform, lethal: frozenset[str], slug: str, *, count: int) -> Weathered:
    calm = Storm(platform)
    calm.make_collection(f"calm-{slug}")
    calm.upload(f"calm-{slug}", corpus(count))
    calm.settled()
    storm = Storm(platform, lethal)
    with storm.blowing():
        storm.day(slug, corpus(count))
    with platform.client() as client:
        return Weathered(storm, platform, fingerprint(client, f"calm-{slug}"), fingerprint(client, slug))


class EndsWell:
    """What holds after every storm."""

    def test_loses_no_document(self, weathered: Weathered) -> None:
        assert weathered.storm.missing() == set()

    def test_takes_no_half_of_a_request(self, weathered: Weathered) -> None:
        assert weathered.storm.halves == []

    def test_lets_only_the_broken_document_fail(self, weathered: Weathered) -> None:
        found = weathered.storm.documents(weathered.storm.collection)
        failed = {
            document["external_id"]: document["error"]["code"] for document in found if document["error"]
        }
        assert failed == {"broken.pdf": "corrupt"}

    def test_changes_no_chunk(self, weathered: Weathered) -> None:
        assert weathered.stormy == weathered.calm

    def test_leaves_nothing_orphaned(self, weathered: Weathered) -> None:
        assert orphans(weathered.platform) == []

    def test_kills_where_it_was_told_to(self, weathered: Weathered) -> None:
        assert set(weathered.storm.killed) == weathered.storm.lethal


@pytest.fixture(scope="session")
def storm(served: Platform) -> Weathered:
    """Killed at the usual points and at one more of the worker's, which the seed draws."""
    drawn = random.Random(SEED).choice([point for point in sorted(POINTS) if point.startswith(IN_WORKERS)])
    return weather(served, ALWAYS | {drawn}, "storm", count=6)


class TestStorm(EndsWell):
    @pytest.fixture
    def weathered(self, storm: Weathered) -> Weathered:
        return storm

    @pytest.mark.parametrize("point", sorted(set(POINTS) - AT_THE_END))
    def test_stops_at(self, weathered: Weathered, point: str) -> None:
        assert point in weathered.storm.reached


@pytest.fixture(scope="session")
def hurricane(served: Platform) -> Weathered:
    return weather(served, frozenset(POINTS) - AT_THE_END, "hurricane", count=12)


@pytest.mark.soak
class TestHurricane(EndsWell):
    """Killed at every point."""

    @pytest.fixture
    def weathered(self, hurricane: Weathered) -> Weathered:
        return hurricane
