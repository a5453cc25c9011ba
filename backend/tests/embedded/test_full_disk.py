"""A disk that is full: before a database is made, before it starts, and while it serves."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx2
import pytest

from tests.embedded.mounts import inside, needs_mounts, small_disk
from tests.embedded.served import hand_in, ready, status_of
from tests.trust.serving import Platform, environment, eventually, open_folder

pytestmark = [needs_mounts, pytest.mark.timeout(300)]
SERVE = (sys.executable, "-m", "app.cli", "serve", "--port", "0")


@dataclass(slots=True)
class OnSmallDisk(Platform):
    """Its data folder is a disk of its own, that only it sees."""

    megabytes: int = 0

    def start(self) -> None:
        self.data_dir.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                inside([small_disk(self.data_dir, megabytes=self.megabytes)], SERVE),
                cwd=self.data_dir.parent,
                env=environment(self.data_dir, **self.settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def disk(self) -> Path:
        """The folder as the platform sees it."""
        assert self.process
        return Path(f"/proc/{self.process.pid}/root{self.data_dir}")

    def services(self) -> dict[str, object]:
        return Platform.services(Platform(self.disk))


def fill(folder: Path, *, leave: int = 0) -> Path:
    """Takes all room but `leave` bytes; answers the file that does."""
    hog = folder / "hog"
    free = os.statvfs(folder)
    with hog.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail * free.f_frsize - leave))
    return hog


@contextmanager
def started(megabytes: int, **settings: str) -> Iterator[OnSmallDisk]:
    with open_folder() as folder:
        platform = OnSmallDisk(folder / "data", settings, megabytes=megabytes)
        platform.start()
        try:
            yield platform
        finally:
            if platform.running:
                platform.stop()


class TestBeforeTheStart:
    def test_a_disk_too_small_for_a_database_is_said_in_one_sentence(self) -> None:
        with started(megabytes=20) as platform:
            assert platform.process
            assert platform.process.wait(60) == 1
            (line,) = [line for line in platform.log.read_text().splitlines() if line.startswith("Error")]
            assert "MB left" in line
            assert "free some space and start again" in line
            assert "Traceback" not in platform.log.read_text()

    def test_a_disk_without_room_to_start_in_is_said_in_one_sentence(
        self, template: Path, folder: Path, system_dir: Path
    ) -> None:
        data = folder / "data"
        data.mkdir()
        mounts = [
            small_disk(data, megabytes=150),
            f"cp -a '{template}/.' '{data}'",
            f"(dd if=/dev/zero of='{data}/hog' bs=64k 2>/dev/null || true)",
        ]
        done = subprocess.run(
            inside(mounts, SERVE),
            cwd=folder,
            env=environment(data),
            capture_output=True,
            text=True,
            timeout=100,
        )
        errors = [line for line in done.stderr.splitlines() if line.startswith("Error")]
        assert (done.returncode, len(errors)) == (1, 1), done.stderr
        assert "free some" in errors[0]
        assert "Traceback" not in done.stderr


@dataclass(frozen=True, slots=True)
class Outage:
    """What was seen of a platform whose disk got full, and then had room again.

    `outcomes` are the answers to uploads on the full disk by name; `documents` the states in the end.
    """

    outcomes: dict[str, httpx2.Response]
    broken: set[int]
    documents: dict[str, str]
    found: list[str]
    log: str


@pytest.fixture(scope="class")
def outage() -> Iterator[Outage]:
    with started(megabytes=600) as platform:
        eventually(lambda: ready(platform) == (200, "ok"), within_s=90)
        with platform.client() as client:
            (before,) = hand_in(client, "notes", "before", "A lantern in the harbour.").json()["items"]
            eventually(lambda: status_of(client, before["document_id"]) == "ready")
            hog = fill(platform.disk)
            outcomes = {
                name: hand_in(client, "notes", name, f"A lantern {name} in the harbour. " + "boat " * 5000)
                for name in ("one", "two", "three")
            }
            asyncio.run(_use_up_the_write_ahead_log(str(platform.services()["migration_url"])))
            broken = {_ask(client) for _ in range(20)}
            hog.unlink()
            eventually(lambda: ready(platform) == (200, "ok"))
            eventually(lambda: hand_in(client, "notes", "after", "A lantern again.").status_code == 202)
            eventually(lambda: set(_documents(client).values()) == {"ready"})
            query = {"collections": ["notes"], "query": "lantern", "mode": "keyword", "top_k": 50}
            hits = client.post("/search", json=query).json()["items"]
            documents = _documents(client)
        log = platform.log.read_text()
        yield Outage(outcomes, broken, documents, [hit["external_id"] for hit in hits], log)


def _documents(client: httpx2.Client) -> dict[str, str]:
    answer = client.get("/collections/notes/documents", params={"limit": 200})
    return {d["external_id"]: d["status"] for d in answer.json().get("items", [])}


def _ask(client: httpx2.Client) -> int:
    time.sleep(0.05)
    return client.post("/collections", json={"name": "other"}).status_code


async def _use_up_the_write_ahead_log(url: str) -> None:
    """The worst that a full disk does to PostgreSQL: it cannot go on at all."""
    owner = await asyncpg.connect(url, timeout=5)
    with suppress(asyncpg.PostgresError, OSError, asyncpg.InterfaceError):
        for _ in range(50):
            await owner.execute("SELECT pg_logical_emit_message(true, 'test', 'needs no file')")
            await owner.execute("SELECT pg_switch_wal()")
    owner.terminate()


class TestWhileServing:
    def test_callers_are_told_that_nothing_was_stored(self, outage: Outage) -> None:
        refused = {name: answer for name, answer in outage.outcomes.items() if answer.status_code != 202}
        assert refused
        assert {answer.status_code for answer in refused.values()} <= {503, 507}
        assert {answer.json()["code"] for answer in refused.values()} <= {"storage_full", "unavailable"}

    def test_a_database_that_cannot_go_on_is_said_to_be_away(self, outage: Outage) -> None:
        assert outage.broken <= {201, 409, 503, 507}
        assert 503 in outage.broken

    def test_what_was_accepted_gets_ready_and_nothing_else_is_there(self, outage: Outage) -> None:
        accepted = {name for name, answer in outage.outcomes.items() if answer.status_code == 202}
        assert outage.documents == dict.fromkeys({"before", "after", *accepted}, "ready")
        assert set(outage.found) == set(outage.documents)

    def test_the_platform_goes_on_when_there_is_room_again(self, outage: Outage) -> None:
        assert "service is back" in outage.log
        assert "Traceback" not in outage.log
