"""A day of work on a platform whose processes are stopped, and some killed, at every named point."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from app.core.failpoints import POINTS
from tests.prose import prose
from tests.trust.corpus import documents
from tests.trust.gates import Gates
from tests.trust.orphans import query, settle
from tests.trust.running import run_agent, short_agent
from tests.trust.serving import Platform, eventually

Files = Sequence[tuple[str, bytes]]
FLAKY = "ingest.begun@flaky=error:1"
"""A document that fails once in each process, in a way that is tried again."""
_PATIENCE_S = 600  # however slow the machine, and however often it is killed


def stormy_settings(folder: Path) -> dict[str, str]:
    """Gates at all points, and documents that may be tried as often as there are points to die at."""
    return {
        "ORRERY_FAILPOINTS": Gates(folder / "gates").setting(FLAKY),
        "ORRERY_INGEST_MAX_ATTEMPTS": "100",
        "ORRERY_INGEST_BATCH_CHUNKS": "2",
        "ORRERY_UPLOAD_GRACE_S": "5",
    }


def gates_of(platform: Platform) -> Gates:
    return Gates(platform.data_dir.parent / "gates")


def corpus(count: int) -> Files:
    """Texts of one to three chunks; `flaky` among them, and one that no parser reads."""
    texts = [(f"note-{n:03}.txt", prose(n, sentences=10 + 20 * (n % 3)).encode()) for n in range(count)]
    return [*texts, ("flaky.txt", prose(900).encode()), ("broken.pdf", b"%PDF-1.7 cut")]


@dataclass(slots=True)
class Storm:
    """`lethal` are the points at which whoever comes first is killed; at all others he is let go."""

    platform: Platform
    lethal: frozenset[str] = frozenset()
    reached: set[str] = field(default_factory=set)
    killed: list[str] = field(default_factory=list)
    accepted: set[str] = field(default_factory=set)
    halves: list[str] = field(default_factory=list)
    collection: str = ""
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def gates(self) -> Gates:
        return gates_of(self.platform)

    @contextmanager
    def blowing(self) -> Iterator[None]:
        """Stops processes at all points for the length of the block; the platform runs afterwards."""
        self.gates.shut(*POINTS)
        thread = threading.Thread(target=self._blow, name="storm")
        thread.start()
        try:
            yield
        finally:
            self.over.set()
            thread.join()
            self.gates.open_all()
            eventually(self.platform.ready, within_s=_PATIENCE_S)

    def _blow(self) -> None:
        while not self.over.is_set():
            for point, pid in list(self.gates.held()):
                self.reached.add(point)
                if point in self.lethal and point not in self.killed:
                    self.killed.append(point)
                    self._kill(pid)
                self.gates.open(point)
            time.sleep(0.01)

    def _kill(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        assert self.platform.process
        if pid == self.platform.process.pid:
            self.platform.process.wait()
            self.platform.launch()

    def insist(self, call: Callable[[httpx2.Client], httpx2.Response]) -> tuple[httpx2.Response, bool]:
        """Repeats `call` until it is answered by anything but a 5xx; whether the first answer was lost."""
        lost = False
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            with suppress(OSError, ValueError, httpx2.TransportError), self.platform.client() as client:
                answer = call(client)
                if answer.status_code < 500:
                    return answer, lost
            lost = True
            time.sleep(0.1)
        raise AssertionError(f"no answer within {_PATIENCE_S} s")

    def make_collection(self, slug: str) -> None:
        answer, _ = self.insist(lambda c: c.post("/collections", json={"name": slug, "slug": slug}))
        assert answer.status_code in (201, 409), answer.text

    def upload(self, collection: str, files: Files) -> None:
        """Hands `files` in as one request, again if its answer is lost: all are there then, or none."""
        parts = [("files", file) for file in files]
        names = {name for name, _ in files}
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            before = self.names(collection) & names
            with suppress(OSError, ValueError, httpx2.TransportError), self.platform.client() as client:
                answer = client.post(f"/collections/{collection}/documents", files=parts, timeout=60)
                if answer.status_code == 202:
                    self.accepted |= {item["document_id"] for item in answer.json()["items"]}
                    return
                assert answer.status_code >= 500, answer.text
            after = self.names(collection) & names
            if after not in (before, names):
                self.halves.append(f"{collection}: {sorted(after)} of {sorted(names)}")
            time.sleep(0.1)
        raise AssertionError("the upload was never taken")

    def names(self, collection: str) -> set[str]:
        answer, _ = self.insist(
            lambda c: c.get(f"/collections/{collection}/documents", params={"limit": 200})
        )
        return {item["external_id"] for item in answer.json()["items"]}

    def documents(self, collection: str) -> list[dict[str, Any]]:
        eventually(self.platform.ready, within_s=_PATIENCE_S)
        with self.platform.client() as client:
            return documents(client, collection)

    def ended(self, collection: str) -> None:
        """Waits until every document of the collection has ended."""

        def open_ones() -> int:
            with suppress(OSError, ValueError, httpx2.HTTPError):
                found = self.documents(collection)
                return sum(document["status"] not in ("ready", "failed") for document in found)
            return 1

        eventually(lambda: not open_ones(), within_s=_PATIENCE_S, every_s=0.2)

    def delete(self, path: str) -> None:
        answer, _ = self.insist(lambda c: c.delete(path))
        assert answer.status_code in (202, 404), answer.text

    def day(self, slug: str, files: Files) -> None:
        """Everything that has a named point, in a collection and beside it."""
        self.collection = slug
        self.make_collection(slug)
        half = len(files) // 2
        drafts = [(name, b"A draft. " + content[:200]) for name, content in files[:3]]
        self.upload(slug, drafts)
        self.ended(slug)
        self.upload(slug, files[:half])  # new content for the drafts: their bytes are erased
        self.upload(slug, files[half:])
        self.ended(slug)
        self.retry()
        self.ended(slug)
        self.drift(f"{slug}-drift")
        self.runs(slug)
        extra = [(f"extra-{n}.txt", prose(500 + n, sentences=5).encode()) for n in range(2)]
        self.upload(slug, extra)
        self.cancel()
        self.make_collection(f"{slug}-gone")
        self.upload(f"{slug}-gone", extra)
        self.delete(f"/collections/{slug}-gone")
        for document in self.documents(slug):
            if document["external_id"].startswith("extra"):
                self.accepted.discard(document["id"])
                self.delete(f"/documents/{document['id']}")
        self.settled()

    def retry(self) -> None:
        """Tries again what has failed: the broken document, which fails once more."""
        failed = "SELECT job_id FROM work_items WHERE state = 'failed' AND kind = 'ingest' ORDER BY id DESC"
        eventually(self.platform.ready, within_s=_PATIENCE_S)
        (job, *_) = query(self.platform, failed)
        answer, lost = self.insist(lambda c: c.post(f"/jobs/{job}/retry"))
        assert answer.is_success or (lost and answer.status_code == 409), answer.text

    def cancel(self) -> None:
        """Cancels the newest ingestion, however far it is."""
        newest = "SELECT id FROM jobs WHERE kind = 'ingestion' ORDER BY id DESC"
        eventually(self.platform.ready, within_s=_PATIENCE_S)
        (job, *_) = query(self.platform, newest)
        answer, _ = self.insist(lambda c: c.post(f"/jobs/{job}/cancel"))
        assert answer.is_success, answer.text

    def drift(self, slug: str) -> None:
        """A collection whose texts become so much longer that its index is re-weighed."""
        self.make_collection(slug)
        self.upload(slug, [("short.txt", b"A lantern.")])
        self.ended(slug)
        self.upload(slug, [("long.txt", prose(950, sentences=30).encode())])
        self.ended(slug)

    def runs(self, collection: str) -> None:
        """Runs, of which at least one ends well."""
        agent, _ = self.insist(lambda c: short_agent(c, collection))
        assert agent.status_code < 300, agent.text
        slug = f"short-{collection}"
        eventually(lambda: self.insist(lambda c: run_agent(c, slug))[0].json()["status"] == "succeeded")
        # Not while the run of an answer that was lost goes on.
        eventually(lambda: self.insist(lambda c: c.delete(f"/agents/{slug}"))[0].status_code in (204, 404))

    def settled(self) -> None:
        def calm() -> bool:
            with suppress(OSError, ValueError, AssertionError):
                settle(self.platform, within_s=1)
                return True
            return False

        eventually(calm, within_s=_PATIENCE_S)

    def missing(self) -> set[str]:
        """Documents that were accepted and not deleted, but are not there."""
        there = {str(found) for found in query(self.platform, "SELECT id FROM documents")}
        erased = "SELECT subject_id FROM work_items WHERE kind = 'erase_document'"
        return self.accepted - there - {str(found) for found in query(self.platform, erased)}
