"""`orrery worker` and `orrery worker --runs` beside an `orrery serve` that is killed and started again."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.embedded.served import hand_in, status_of
from tests.graphs import HELLO_GRAPH
from tests.trust.running import ended
from tests.trust.serving import Platform, eventually, open_folder, started

pytestmark = pytest.mark.timeout(300)
_SETTINGS = {"ORRERY_RUN_CLAIMS": "false"}  # of the API process: its runs are the worker's


@dataclass(frozen=True, slots=True)
class Worker:
    process: subprocess.Popen[str]
    log: Path

    def told(self, event: str) -> list[dict[str, Any]]:
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [entry for entry in map(json.loads, lines) if str(entry.get("event", "")).endswith(event)]

    def until_ready(self) -> None:
        eventually(lambda: self.told("ready") or self.told("ready."))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def working(platform: Platform, *arguments: str, **settings: str) -> Iterator[Worker]:
    """A worker that was started."""
    log = platform.data_dir.parent / f"worker{''.join(arguments)}{len(settings)}.log"
    log.unlink(missing_ok=True)
    with (
        log.open("ab") as stream,
        started(
            ["worker", *arguments], platform.data_dir, stdout=stream, stderr=stream, **settings
        ) as process,
    ):
        yield Worker(process, log)


@pytest.fixture(scope="module")
def served() -> Iterator[Platform]:
    with open_folder() as folder:
        platform = Platform(folder / "data", _SETTINGS, ("--no-worker",))
        platform.start()
        yield platform
        if platform.running:
            platform.stop()


@pytest.fixture
def platform(served: Platform) -> Platform:
    if not served.running:
        served.start()
    return served


def background_run(platform: Platform) -> dict[str, Any]:
    """A run that only a worker takes up, once it has ended."""
    with platform.client() as client:
        client.post("/agents", json={"name": "Greeter", "slug": "greeter", "graph": HELLO_GRAPH})
        body = {"input": {"name": "Ada"}, "mode": "background", "version": "draft"}
        run = client.post("/agents/greeter/runs", json=body).raise_for_status().json()["id"]
        return dict(eventually(lambda: ended(client, run)))


def taken_in(platform: Platform, name: str) -> bool:
    """Whether a worker takes in a document."""
    with platform.client() as client:
        (item,) = hand_in(client, "followed", name, "A lantern in the harbour.").json()["items"]
        return bool(eventually(lambda: status_of(client, item["document_id"]) == "ready"))


@dataclass(frozen=True, slots=True)
class Followed:
    """What two workers did when their platform was killed and started again."""

    run: dict[str, Any]
    document: bool
    workers: tuple[Worker, Worker]
    codes: tuple[int, int]


@pytest.fixture(scope="module")
def followed(served: Platform) -> Iterator[Followed]:
    with ExitStack() as stack:
        both = (
            stack.enter_context(working(served)),
            stack.enter_context(working(served, "--runs")),
        )
        for worker in both:
            worker.until_ready()
        served.kill()
        for worker in both:
            eventually(lambda worker=worker: worker.told("services_gone"))
        served.start()
        run, document = background_run(served), taken_in(served, "after")
        codes = both[0].stop(), both[1].stop()
        yield Followed(run, document, both, codes)


class TestPlatformThatIsStartedAgain:
    def test_has_its_runs_executed_by_the_worker_that_was_there(self, followed: Followed) -> None:
        assert followed.run["status"] == "succeeded"

    def test_has_its_documents_taken_in_by_the_worker_that_was_there(self, followed: Followed) -> None:
        assert followed.document

    def test_is_told_as_gone_once_and_as_back_once(self, followed: Followed) -> None:
        for worker in followed.workers:
            assert [len(worker.told(event)) for event in ("services_gone", "services_back")] == [1, 1]

    def test_leaves_no_traceback(self, followed: Followed) -> None:
        for worker in followed.workers:
            assert "Traceback" not in worker.log.read_text()

    def test_has_workers_that_end_well(self, followed: Followed) -> None:
        assert followed.codes == (0, 0)


@pytest.mark.parametrize(("arguments", "number"), [((), signal.SIGINT), (("--runs",), signal.SIGTERM)])
def test_worker_ends_well_while_the_platform_is_away(
    platform: Platform, arguments: tuple[str, ...], number: signal.Signals
) -> None:
    with working(platform, *arguments) as worker:
        worker.until_ready()
        platform.kill()
        eventually(lambda: worker.told("services_gone"))
        assert worker.stop(number) == 0
    assert "Traceback" not in worker.log.read_text()


def test_worker_on_named_services_ends_well_while_they_are_away(platform: Platform) -> None:
    services = platform.services()
    named = {"ORRERY_DATABASE_URL": services["database_url"], "ORRERY_REDIS_URL": services["redis_url"]}
    with working(platform, "--runs", **named) as worker:
        worker.until_ready()
        platform.kill()
        eventually(lambda: worker.told("runs_not_claimed"))
        assert worker.stop() == 0
    assert worker.told("services_gone") == []
    assert "Traceback" not in worker.log.read_text()


def test_worker_says_that_named_services_do_not_answer(platform: Platform) -> None:
    services = platform.services()
    platform.kill()
    named = {"ORRERY_DATABASE_URL": services["database_url"], "ORRERY_REDIS_URL": services["redis_url"]}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started(["worker", "--runs"], platform.data_dir, **pipes, **named) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith("Error: The database 127.0.0.1:")
    assert "does not answer" in err
