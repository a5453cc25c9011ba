"""Services that are killed, or whose platform is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest
from redis.asyncio import Redis as RedisClient
from redis.exceptions import RedisError

from app.core.config import Settings
from app.embedded import open_services
from app.embedded.binaries import redis_program
from app.embedded.failures import DiedAtStart
from app.embedded.leftovers import find_leftovers, runs
from app.embedded.places import find_places, make_data_folder
from app.embedded.ports import LOOPBACK, free_port
from app.embedded.redis import Redis
from app.embedded.supervisor import log_lost, supervised

HOLD_OPEN = Path(__file__).with_name("hold_open.py")
ON_LINUX = sys.platform == "linux"


@contextmanager
def platform_process(settings: Settings, system_dir: Path):
    """Another process with the services open; yields it and the owner's URL."""
    process = subprocess.Popen(
        [sys.executable, str(HOLD_OPEN), str(settings.data_dir), str(system_dir)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    try:
        yield process, json.loads(process.stdout.readline())["migration_url"]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def execute(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url, timeout=5)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def eventually(check: Callable[[], bool], *, timeout_s: float = 10) -> bool:
    for _ in range(int(timeout_s / 0.05)):
        if check():
            return True
        await asyncio.sleep(0.05)
    return False


def cluster_of(settings: Settings) -> Path:
    return (settings.data_dir / "postgres").resolve()


def server_pid(settings: Settings) -> int:
    return int((cluster_of(settings) / "postmaster.pid").read_text().splitlines()[0])


class TestKilledPlatform:
    @pytest.mark.skipif(not ON_LINUX, reason="only Linux tells children of their parent's death")
    async def test_takes_its_services_with_it(self, used: Settings, system_dir: Path):
        with platform_process(used, system_dir) as (platform, _):
            places = find_places(used.data_dir, system_dir=system_dir)
            platform.kill()
            assert await eventually(lambda: not find_leftovers("postgres", places.cluster))
            assert await eventually(lambda: not find_leftovers("redis-server", places.redis))

    async def test_starts_again_at_once_with_the_same_data(self, used: Settings, system_dir: Path):
        with platform_process(used, system_dir) as (platform, url):
            await execute(url, "CREATE TABLE kept AS SELECT 42 AS answer")
            platform.kill()
            platform.wait()
        async with open_services(used, system_dir=system_dir) as services:
            assert await execute(services.migration_url, "SELECT answer FROM kept") == 42

    async def test_removes_what_it_announced(self, used: Settings, system_dir: Path):
        announced = make_data_folder(used.data_dir) / "run" / "services.json"
        announced.write_text("{}")
        async with open_services(used, system_dir=system_dir):
            assert not announced.exists()


class TestLeftovers:
    async def test_of_redis_are_stopped(self, settings: Settings, system_dir: Path):
        places = find_places(make_data_folder(settings.data_dir), system_dir=system_dir)
        server = Redis(places=places, program=redis_program(places), password="x", timeout_s=10)
        leftover = await server.start(free_port())
        current = await server.start(free_port())
        assert leftover.poll() is not None
        assert current.poll() is None
        await server.stop(current)

    async def test_of_postgres_are_stopped(self, used: Settings, system_dir: Path):
        async with open_services(used, system_dir=system_dir):
            command = psutil.Process(server_pid(used)).cmdline()
        owner = cluster_of(used).stat()
        as_owner = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
        leftover = subprocess.Popen(command, cwd="/", stderr=subprocess.DEVNULL, **as_owner)
        assert await eventually(lambda: (cluster_of(used) / "postmaster.pid").exists())
        async with open_services(used, system_dir=system_dir) as services:
            assert leftover.poll() is not None
            assert await execute(services.database_url, "SELECT 1") == 1


class TestStalePid:
    @pytest.fixture
    def stranger(self, used: Settings):
        """A living process of the user who runs PostgreSQL; made once the cluster exists."""
        processes: list[subprocess.Popen[bytes]] = []

        def make() -> subprocess.Popen[bytes]:
            owner = cluster_of(used).stat()
            as_owner = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
            processes.append(subprocess.Popen(["sleep", "60"], cwd="/", **as_owner))
            return processes[-1]

        yield make
        for process in processes:
            process.kill()
            process.wait()

    async def test_that_now_belongs_to_a_stranger_is_forgotten(
        self, used: Settings, system_dir: Path, stranger
    ):
        async with open_services(used, system_dir=system_dir):
            lock = cluster_of(used) / "postmaster.pid"
            rest = lock.read_text().split("\n", 1)[1]
        other = stranger()
        lock.write_text(f"{other.pid}\n{rest}")
        lock.chmod(0o644)
        async with open_services(used, system_dir=system_dir) as services:
            assert await execute(services.database_url, "SELECT 1") == 1
        assert other.poll() is None

    @pytest.mark.parametrize("content", ["", "not a number\n"])
    async def test_that_was_cut_short_is_forgotten(self, used: Settings, system_dir: Path, content: str):
        async with open_services(used, system_dir=system_dir):
            lock = cluster_of(used) / "postmaster.pid"
        lock.write_text(content)
        async with open_services(used, system_dir=system_dir) as services:
            assert await execute(services.database_url, "SELECT 1") == 1


class TestSupervisor:
    async def test_restarts_postgres_on_its_port(self, used: Settings, system_dir: Path):
        async with open_services(used, system_dir=system_dir) as services:
            killed = server_pid(used)
            os.kill(killed, signal.SIGKILL)
            for _ in range(200):
                try:
                    assert await execute(services.database_url, "SELECT 1") == 1
                    break
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    await asyncio.sleep(0.05)
            assert server_pid(used) != killed
            assert runs(psutil.Process(server_pid(used)))

    async def test_restarts_redis_on_its_port(self, used: Settings, system_dir: Path):
        async with open_services(used, system_dir=system_dir) as services:
            places = find_places(used.data_dir, system_dir=system_dir)
            (server,) = find_leftovers("redis-server", places.redis)
            server.kill()
            async with RedisClient.from_url(services.redis_url) as client:
                for _ in range(200):
                    try:
                        answered = await client.ping()
                        break
                    except (OSError, RedisError):
                        answered = False
                        await asyncio.sleep(0.05)
            assert answered

    async def test_tries_another_port_when_the_first_is_taken(self, settings: Settings, system_dir: Path):
        places = find_places(make_data_folder(settings.data_dir), system_dir=system_dir)
        redis = Redis(places=places, program=redis_program(places), password="x", timeout_s=10)
        with socket.socket() as taken:
            taken.bind((LOOPBACK, 0))
            taken.listen()

            class FirstPortTaken:
                name = "redis"
                tries = 0
                stop = redis.stop

                async def start(self, port: int) -> subprocess.Popen[bytes]:
                    self.tries += 1
                    return await redis.start(taken.getsockname()[1] if self.tries == 1 else port)

            server = FirstPortTaken()
            async with supervised(server, restarts=3, lost=log_lost) as port:
                assert server.tries == 2
                assert port != taken.getsockname()[1]

    async def test_a_taken_port_is_named_by_the_server(self, settings: Settings, system_dir: Path):
        places = find_places(make_data_folder(settings.data_dir), system_dir=system_dir)
        redis = Redis(places=places, program=redis_program(places), password="x", timeout_s=10)
        with socket.socket() as taken:
            taken.bind((LOOPBACK, 0))
            taken.listen()
            with pytest.raises(DiedAtStart, match="Address already in use"):
                await redis.start(taken.getsockname()[1])
