"""Services that die under `orrery serve`, and a platform that is killed: it is back, or it says why not."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
import psutil
import pytest
from pydantic import SecretStr

from app.cli.crash import Crash, read_crash
from app.cli.serve import serve
from app.cli.worker_process import worker_arguments, worker_environment
from app.core.config import Settings
from app.core.errors import Misconfigured
from app.embedded import Services
from tests.embedded.served import (
    alive,
    children,
    cluster_of,
    hand_in,
    logged,
    ready,
    server,
    status_of,
)
from tests.trust.serving import Platform, eventually, kill_tree, open_folder

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def served() -> Iterator[Platform]:
    with open_folder() as folder:
        platform = Platform(folder / "data", {"ORRERY_HOST": "0.0.0.0", "ORRERY_EMBEDDED_RESTARTS": "1"})
        platform.start()
        yield platform
        if platform.running:
            platform.stop()


@pytest.fixture
def platform(served: Platform) -> Platform:
    if not served.running:
        served.start()
    return served


def statuses_until(client: httpx2.Client, recovered: int = 200) -> set[int]:
    """What callers see of an outage."""
    seen: set[int] = set()

    def look() -> bool:
        seen.add(client.get("/collections").status_code)
        return recovered in seen

    eventually(look, within_s=30, every_s=0.02)
    return seen


class TestKilledService:
    def test_postgres_comes_back_and_callers_see_nothing_worse_than_503(self, platform: Platform) -> None:
        killed = server(platform, "postgres")
        with platform.client() as client:
            killed.kill()
            assert statuses_until(client) <= {200, 503}
            assert eventually(lambda: ready(platform) == (200, "ok"))
        assert server(platform, "postgres").pid != killed.pid

    def test_redis_comes_back_and_work_goes_on(self, platform: Platform) -> None:
        killed = server(platform, "redis-server")
        eventually(lambda: "@localhost ready." in platform.log.read_text())
        mark = len(platform.log.read_text())
        killed.kill()
        assert eventually(lambda: logged(platform, "service is back"))
        assert eventually(lambda: ready(platform) == (200, "ok"))
        with platform.client() as client:
            (item,) = hand_in(client, "after-crash", "one", "A lantern in the harbour.").json()["items"]
            assert eventually(lambda: status_of(client, item["document_id"]) == "ready")
            assert eventually(lambda: "Connected to redis" in platform.log.read_text()[mark:])
        assert server(platform, "redis-server").pid != killed.pid
        assert "CPendingDeprecationWarning" not in platform.log.read_text()


class TestLoopback:
    def test_services_are_not_opened_to_the_network_with_the_api(self, platform: Platform) -> None:
        assert platform.process
        ours = {process.pid for process in children(platform)}
        listening = [e for e in psutil.net_connections("tcp") if e.status == psutil.CONN_LISTEN and e.laddr]
        assert {e.laddr.ip for e in listening if e.pid == platform.process.pid} == {"0.0.0.0"}
        assert {e.laddr.ip for e in listening if e.pid in ours} == {"127.0.0.1"}


class TestSecondPlatform:
    async def test_on_the_same_port_and_folder_names_the_first(self, platform: Platform) -> None:
        port = int(platform.url.rsplit(":", 1)[1])
        settings = Settings(data_dir=platform.data_dir, port=port, host="0.0.0.0", _env_file=None)
        assert platform.process
        pid = platform.process.pid
        with pytest.raises(Misconfigured, match=rf"as process {pid}; stop it, or choose .* ORRERY_PORT"):
            await serve(settings, worker=False, started=lambda *_: None)


@dataclass(frozen=True, slots=True)
class Killed:
    """A platform that was killed amid documents, and started again on what it left."""

    family: list[int]
    left: subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def killed(served: Platform) -> Iterator[Killed]:
    if not served.running:
        served.start()
    with served.client() as client:
        texts = [f"Lantern {n}. " + "A boat in the harbour at night. " * 400 for n in range(30)]
        items = [{"external_id": f"{n}", "title": f"{n}", "text": text} for n, text in enumerate(texts)]
        client.post("/collections", json={"name": "many"})
        client.post("/collections/many/documents/text", json={"items": items}).raise_for_status()
        eventually(lambda: _working(client), every_s=0.01)
    family = children(served)
    left = _worker_nobody_ends(served)
    served.kill()
    eventually(lambda: not alive(family), within_s=30)
    served.start()
    yield Killed(alive(family), left)
    kill_tree(left.pid)
    left.wait()


def _working(client: httpx2.Client) -> bool:
    documents = client.get("/collections/many/documents").json()["items"]
    return any(d["status"] in ("parsing", "chunking", "embedding", "indexing") for d in documents)


def _worker_nobody_ends(platform: Platform) -> subprocess.Popen[bytes]:
    """As where the kernel does not tell children of their parent's death."""
    found = platform.services()
    services = Services(found["database_url"], found["migration_url"], found["redis_url"])
    settings = Settings(data_dir=platform.data_dir, master_key=SecretStr("x" * 32), _env_file=None)
    environment = worker_environment(settings, services, "local:worker")
    return subprocess.Popen(worker_arguments("left@localhost"), env=environment, stderr=subprocess.DEVNULL)


class TestKilledPlatform:
    def test_leaves_no_process_where_the_kernel_helps(self, killed: Killed) -> None:
        assert killed.family == []

    def test_is_followed_by_one_that_ends_the_worker_it_left(
        self, killed: Killed, platform: Platform
    ) -> None:
        assert killed.left.poll() is not None
        event = "leftover processes of an earlier start are stopped"
        assert "worker" in [entry["service"] for entry in logged(platform, event)]

    def test_is_followed_by_one_that_says_what_it_takes_over(
        self, killed: Killed, platform: Platform
    ) -> None:
        (taken,) = logged(platform, "taken_over_from_dead_processes")
        assert taken["items"] >= 1


@dataclass(frozen=True, slots=True)
class GivenUp:
    """What was seen of a platform whose database cannot be started any more."""

    code: int
    said: str
    left: list[int]
    crash: Crash | None


@pytest.fixture(scope="module")
def given_up(served: Platform) -> GivenUp:
    if not served.running:
        served.start()
    assert served.process
    offset = len(served.log.read_text())
    control = cluster_of(served.data_dir) / "global" / "pg_control"
    family = children(served)
    away = control.rename(control.with_name("away"))
    server(served, "postgres").kill()
    try:
        code = served.process.wait(60)
        crash = read_crash(Settings(data_dir=served.data_dir, _env_file=None))
        return GivenUp(code, served.log.read_text()[offset:], alive(family), crash)
    finally:
        away.rename(control)


class TestServiceThatKeepsDying:
    def test_ends_the_platform_with_one_sentence(self, given_up: GivenUp) -> None:
        assert given_up.code == 1
        (line,) = [line for line in given_up.said.splitlines() if line.startswith("Error: ")]
        assert "postgresql was started 1 times in a row and did not last" in line
        assert "restore them from a backup" in line
        assert "Traceback" not in given_up.said

    def test_takes_everything_with_it(self, given_up: GivenUp) -> None:
        assert given_up.left == []

    def test_is_remembered_for_the_doctor(self, given_up: GivenUp) -> None:
        assert given_up.crash
        assert "did not last" in given_up.crash.reason
