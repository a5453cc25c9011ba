"""The end of `orrery serve` and `orrery demo`: in order when asked once, at once when asked twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx2
import psutil
import pytest

from tests.embedded.served import alive, children, logged, ready
from tests.trust.serving import (
    Platform,
    environment,
    eventually,
    open_folder,
    processes_in,
    started,
)

pytestmark = pytest.mark.timeout(300)
NOTICE = {"ORRERY_SHUTDOWN_NOTICE_S": "2"}
ECHO = {
    "schema_version": "1",
    "inputs": {
        "type": "object",
        "properties": {"question": {"type": "string"}},
        "required": ["question"],
    },
    "interface": {"message": "question", "answer": "answer"},
    "nodes": [
        {"id": "start", "type": "start"},
        {"id": "done", "type": "end", "config": {"output": {"answer": "{{ inputs.question }}"}}},
    ],
    "edges": [{"source": "start", "target": "done"}],
}
REOPENED = """
    WITH cut AS (
        DELETE FROM agent_run_events WHERE run_id = $1 AND type IN ('RUN_FINISHED', 'RUN_ERROR')
    )
    UPDATE agent_runs SET status = 'running', finished_at = NULL, last_seq = last_seq - 1,
        lease_owner = 'local:dead', lease_until = now() + interval '1 hour'
    WHERE id = $1 RETURNING last_seq
"""


@dataclass(slots=True)
class ApiOnly(Platform):
    """Without a worker, which starts faster."""

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--no-worker"],
                cwd=self.data_dir.parent,
                env=environment(self.data_dir, **self.settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        eventually(lambda: ready(self) == (200, "ok"), within_s=90)


@pytest.fixture(scope="module")
def served() -> Iterator[ApiOnly]:
    with open_folder() as folder:
        platform = ApiOnly(folder / "data", NOTICE)
        platform.start()
        yield platform
        if platform.running:
            platform.stop()


def open_run(platform: Platform, client: httpx2.Client) -> tuple[str, int]:
    """A run that a dead process holds for an hour, and its last event: its readers wait."""
    client.post("/agents", json={"name": "Echo", "slug": "echo", "graph": ECHO}).raise_for_status()
    client.post("/agents/echo/publish").raise_for_status()
    body = {"input": {"question": "lantern"}, "mode": "wait"}
    run_id = client.post("/agents/echo/runs", json=body).raise_for_status().json()["id"]

    async def reopen() -> int:
        owner = await asyncpg.connect(platform.services()["migration_url"])
        try:
            return int(await owner.fetchval(REOPENED, run_id))
        finally:
            await owner.close()

    return run_id, asyncio.run(reopen())


@dataclass(slots=True)
class Reader:
    """Follows a run in a thread, until the stream ends."""

    client: httpx2.Client
    run_id: str
    seen: list[dict[str, Any]] = field(default_factory=list)
    ended: str = ""

    def follow(self, after: int = 0) -> None:
        try:
            with self.client.stream("GET", f"/runs/{self.run_id}/events", params={"after": after}) as answer:
                for line in answer.iter_lines():
                    if line.startswith("data:"):
                        self.seen.append(json.loads(line[5:]))
            self.ended = "in order"
        except httpx2.TransportError as error:
            self.ended = repr(error)


@dataclass(frozen=True, slots=True)
class Stopped:
    """What was seen of a platform that got SIGTERM while a run was followed, and what came afterwards."""

    state: tuple[int, str]
    reader: Reader
    last_seq: int
    code: int
    left: list[int]
    rest: list[dict[str, Any]]


@pytest.fixture(scope="module")
def stopped(served: ApiOnly) -> Stopped:
    assert served.process
    with served.client() as client:
        run_id, last_seq = open_run(served, client)
        reader = Reader(client, run_id)
        thread = threading.Thread(target=reader.follow)
        thread.start()
        eventually(lambda: len(reader.seen) == last_seq, every_s=0.01)
        family = children(served)
        served.process.terminate()
        state = eventually(lambda: None if ready(served)[0] == 200 else ready(served), every_s=0.01)
        code = served.process.wait(60)
        thread.join(10)
    left = alive(family)
    served.start()
    with served.client() as client:
        again = Reader(client, run_id)
        again.follow(after=last_seq)
    return Stopped(state, reader, last_seq, code, left, again.seen)


class TestSigterm:
    def test_takes_readiness_away_first(self, stopped: Stopped) -> None:
        assert stopped.state == (503, "stopping")

    def test_ends_streams_between_two_events(self, stopped: Stopped) -> None:
        assert stopped.reader.ended == "in order"
        assert [event["seq"] for event in stopped.reader.seen] == list(range(1, stopped.last_seq + 1))

    def test_lets_readers_go_on_after_the_restart(self, stopped: Stopped) -> None:
        first = stopped.last_seq + 1
        assert [event["seq"] for event in stopped.rest] == list(range(first, first + len(stopped.rest)))
        assert stopped.rest[-1]["event"]["type"] == "RUN_FINISHED"

    def test_exits_with_zero_and_leaves_nothing(self, stopped: Stopped) -> None:
        assert (stopped.code, stopped.left) == (0, [])

    def test_is_followed_by_a_start_that_says_what_it_takes_over(
        self, stopped: Stopped, served: ApiOnly
    ) -> None:
        (taken,) = logged(served, "taken_over_from_dead_processes")
        assert (taken["runs"], taken["items"]) == (1, 0)


class TestSecondSignal:
    def test_ends_the_platform_at_once(self, stopped: Stopped, served: ApiOnly) -> None:
        assert served.process
        family = children(served)
        served.process.send_signal(signal.SIGINT)
        eventually(lambda: ready(served) == (503, "stopping"), every_s=0.01)
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(10) == 128 + signal.SIGINT
        assert "Stopped at once" in served.log.read_text()
        assert eventually(lambda: not alive(family))


class TestWhileStarting:
    def test_a_signal_ends_serve_in_order(self, served: ApiOnly) -> None:
        with (
            open_folder() as folder,
            started(
                ["serve", "--port", "0"], folder / "data", stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ) as serve,
        ):
            eventually((folder / "data" / "run" / "lock").exists, every_s=0.01)
            serve.send_signal(signal.SIGTERM)
            _, err = serve.communicate(timeout=60)
            assert (serve.returncode, "Traceback" in err) == (0, False)
            assert list(processes_in(folder)) == []

    def test_an_interrupt_ends_the_demo_with_one_sentence(self) -> None:
        with (
            open_folder() as folder,
            started(["demo"], folder / "data", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as demo,
        ):
            eventually((folder / "data" / "run" / "lock").exists, every_s=0.01)
            (server,) = psutil.Process(demo.pid).children()
            assert os.getsid(server.pid) != os.getsid(demo.pid)  # a terminal interrupts the demo only
            demo.send_signal(signal.SIGINT)
            out, err = demo.communicate(timeout=60)
            assert (demo.returncode, err) == (130, "")
            assert out.splitlines()[1:] == [
                "Interrupted: what the demo started is stopped; it can be run again at any time."
            ]
            assert list(processes_in(folder)) == []
