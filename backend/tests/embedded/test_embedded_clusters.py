"""Databases that the embedded PostgreSQL cannot serve: one sentence that says what to do, nothing changed."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest

from app.core.config import Settings
from app.core.errors import Misconfigured
from app.embedded import open_services
from app.embedded.failures import DiskFull, start_failure
from app.embedded.supervisor import supervised


async def failure(settings: Settings, system_dir: Path) -> str:
    with pytest.raises(Misconfigured) as caught:
        async with open_services(settings, system_dir=system_dir):
            pass
    assert "\n" not in caught.value.detail
    return caught.value.detail


@pytest.fixture
def cluster(used: Settings) -> Path:
    return (used.data_dir / "postgres").resolve()


class TestAnotherVersion:
    @pytest.mark.parametrize("version", ["15", "17", "19"])
    async def test_names_both_and_the_ways_out(
        self, used: Settings, cluster: Path, system_dir: Path, version: str
    ):
        (cluster / "PG_VERSION").write_text(f"{version}\n")
        said = await failure(used, system_dir)
        assert f"made by PostgreSQL {version}, which the embedded PostgreSQL 18 cannot read" in said
        assert "dump it" in said
        assert "ORRERY_DATABASE_URL" in said
        assert (cluster / "base").is_dir()


class TestDamage:
    @pytest.mark.parametrize("name", ["PG_VERSION", "global/pg_control"])
    async def test_a_missing_file_is_named(self, used: Settings, cluster: Path, system_dir: Path, name: str):
        (cluster / name).unlink()
        said = await failure(used, system_dir)
        assert f"is damaged ({name!r} is missing)" in said
        assert "backup" in said

    @pytest.mark.parametrize("content", [b"", b"\0" * 8192], ids=["empty", "zeroes"])
    async def test_a_control_file_that_makes_no_sense_is_quoted_from_the_log(
        self, used: Settings, cluster: Path, system_dir: Path, content: bytes
    ):
        (cluster / "global" / "pg_control").write_bytes(content)
        said = await failure(used, system_dir)
        assert "restore them from a backup" in said

    async def test_lost_write_ahead_log_is_quoted_from_the_log(
        self, used: Settings, cluster: Path, system_dir: Path
    ):
        for segment in (cluster / "pg_wal").iterdir():
            if segment.is_file():
                segment.unlink()
        said = await failure(used, system_dir)
        assert "checkpoint record" in said
        assert "restore them from a backup" in said

    async def test_a_restored_folder_works_again(self, used: Settings, cluster: Path, system_dir: Path):
        shutil.copytree(cluster, cluster.with_name("backup"))
        (cluster / "global" / "pg_control").unlink()
        await failure(used, system_dir)
        shutil.copy(cluster.with_name("backup") / "global" / "pg_control", cluster / "global")
        owner = cluster.stat()
        shutil.chown(cluster / "global" / "pg_control", owner.st_uid, owner.st_gid)
        async with open_services(used, system_dir=system_dir) as services:
            assert services.owned == ("postgresql", "redis")


class TestGivingUp:
    async def test_says_why_after_the_last_try(self, used: Settings, cluster: Path, system_dir: Path):
        lost: asyncio.Queue[Misconfigured] = asyncio.Queue()
        settings = used.model_copy(update={"embedded_restarts": 2})
        async with open_services(settings, system_dir=system_dir, lost=lost.put_nowait):
            pid = int((cluster / "postmaster.pid").read_text().split("\n", 1)[0])
            (cluster / "global" / "pg_control").rename(cluster / "away")
            psutil.Process(pid).kill()
            reason = await asyncio.wait_for(lost.get(), 60)
        assert "postgresql was started 2 times in a row and did not last" in reason.detail
        assert "pg_control" in reason.detail


class TestFullDisk:
    """The parts that need no small disk; `test_full_disk.py` has one."""

    def test_is_told_by_the_last_words(self, folder: Path):
        log = folder / "log"
        log.write_text("could not write: No space left on device\n")
        error = start_failure("It ended", log=log, offset=0)
        assert isinstance(error, DiskFull)
        assert "free some disk space" in error.detail

    async def test_is_waited_for_however_long_it_lasts(self):
        class Server:
            """Ends at once, and has no room for the next two starts."""

            name = "server"
            starts = 0
            is_back = False

            async def start(self, port: int):
                self.starts += 1
                if 1 < self.starts < 4:
                    raise DiskFull("no room")
                process = await asyncio.to_thread(_ended if self.starts == 1 else _sleeping)
                self.is_back = self.starts > 1
                return process

            async def stop(self, process) -> None:
                process.kill()
                process.wait()

        lost: list[Misconfigured] = []
        server = Server()
        async with supervised(server, restarts=1, lost=lost.append):
            while not server.is_back:
                await asyncio.sleep(0.05)
            assert lost == []


def _ended():
    process = subprocess.Popen(["true"])
    process.wait()
    return process


def _sleeping():
    return subprocess.Popen(["sleep", "60"])
