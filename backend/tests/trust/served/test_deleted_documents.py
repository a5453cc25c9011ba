"""G7: what is deleted leaves nothing in any store, and no late writer brings it back."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.core.failpoints import POINTS
from tests.trust.corpus import make_collection, upload
from tests.trust.gates import Gates
from tests.trust.orphans import orphans, query, settle, stored_blobs
from tests.trust.serving import Platform, eventually, second_worker

pytestmark = pytest.mark.timeout(300)
UNREACHED = ("ingest.failing", "ingest.failed")
STAGES = sorted(point for point in POINTS if point.startswith("ingest.") and point not in UNREACHED)
REDUCED = ("ingest.parsed", "ingest.publishing")
CANARY = "zanzibarine"
"""A word that stands in the deleted document and nowhere else; in its name, too."""
TEXT = f"The {CANARY} lantern stands in the harbour. " * 120
TABLES = """
    SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relispartition
"""


def mentions(platform: Platform, word: str) -> list[str]:
    """Tables with a row, and blobs with bytes, in which `word` stands."""
    row = "SELECT 1 FROM {} AS t WHERE position($1 IN to_jsonb(t)::text) > 0 LIMIT 1"
    found = [table for table in query(platform, TABLES) if query(platform, row.format(table), word)]
    blobs = stored_blobs(platform).items()
    return found + [key for key, path in blobs if word.encode() in path.read_bytes()]


def everywhere(platform: Platform, document_id: str) -> set[str]:
    """Where the document is still found: by its text and words, with its vectors, or by its id.

    Jobs and work items keep the id: they say that it was deleted.
    """
    kept = ("jobs", "work_items")
    by_id = {table for table in mentions(platform, document_id) if table not in kept}
    return by_id | set(mentions(platform, CANARY))


def hand_in(platform: Platform, slug: str) -> str:
    with platform.client() as client:
        make_collection(client, slug)
        return upload(client, slug, [(f"{CANARY}.txt", TEXT.encode())]).ids[0]


def caught_at(point: str, platform: Platform, gates: Gates, slug: str) -> str:
    """A document in a new collection, whose worker stands at `point`."""
    gates.shut(point)
    document = hand_in(platform, slug)
    gates.caught(point)
    return document


def delete(platform: Platform, path: str) -> None:
    with platform.client() as client:
        assert client.delete(path).status_code == 202


def delete_during(platform: Platform, path: str, gates: Gates, point: str) -> None:
    """Deletes while a worker stands at `point`, then lets it go on.

    Before its commit the worker holds the document's row, for which the deletion waits.
    """
    with ThreadPoolExecutor() as pool:
        deletion = pool.submit(delete, platform, path)
        if point.endswith("ing"):
            time.sleep(0.3)
            gates.open(point)
        deletion.result(30)
    gates.open(point)


def hits(platform: Platform, slug: str) -> list[str]:
    with platform.client() as client:
        answer = client.post("/search", json={"collections": [slug], "query": CANARY}).raise_for_status()
        return [item["document_id"] for item in answer.json()["items"]]


def slug_of(point: str, kind: str) -> str:
    return f"{kind}-{point.replace('.', '-')}"


class TestDeletion:
    @pytest.mark.parametrize(
        "point", [pytest.param(p, marks=[] if p in REDUCED else pytest.mark.soak) for p in STAGES]
    )
    def test_of_a_document_that_is_being_ingested_leaves_nothing(
        self, platform: Platform, gates: Gates, point: str
    ) -> None:
        slug = slug_of(point, "document")
        document = caught_at(point, platform, gates, slug)
        delete_during(platform, f"/documents/{document}", gates, point)
        settle(platform)
        assert everywhere(platform, document) == set()
        assert hits(platform, slug) == []
        assert orphans(platform) == []

    @pytest.mark.soak
    @pytest.mark.parametrize("point", STAGES)
    def test_of_its_collection_leaves_nothing(self, platform: Platform, gates: Gates, point: str) -> None:
        slug = slug_of(point, "collection")
        document = caught_at(point, platform, gates, slug)
        delete_during(platform, f"/collections/{slug}", gates, point)
        settle(platform)
        assert everywhere(platform, document) == set()
        assert orphans(platform) == []


@pytest.mark.soak
class TestLateWriter:
    @pytest.mark.parametrize("point", [point for point in STAGES if not point.endswith("ing")])
    def test_brings_nothing_back_after_another_worker_has_erased(
        self, platform: Platform, gates: Gates, point: str
    ) -> None:
        document = caught_at(point, platform, gates, slug_of(point, "late"))
        with second_worker(platform):
            delete(platform, f"/documents/{document}")
            eventually(lambda: everywhere(platform, document) == set(), within_s=150, every_s=0.2)
            gates.open(point)
            settle(platform)
            assert everywhere(platform, document) == set()
        assert orphans(platform) == []
