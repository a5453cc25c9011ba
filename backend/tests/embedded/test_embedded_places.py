"""Where the services live, and that private folders stay private."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from pathlib import Path

import asyncpg
import pytest

from app.core.config import Settings
from app.core.errors import Misconfigured
from app.embedded import open_services
from app.embedded.account import Account
from app.embedded.binaries import postgres_programs
from app.embedded.places import find_places, make_data_folder

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="relocation happens only as root")


async def tables(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM pg_tables WHERE tablename = 'kept'"))
    finally:
        await connection.close()


async def make_table(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("CREATE TABLE kept (id int)")
    finally:
        await connection.close()


class TestReachableFolder:
    async def test_keeps_the_cluster_in_it(self, settings: Settings, system_dir: Path):
        async with open_services(settings, system_dir=system_dir):
            assert (settings.data_dir / "postgres" / "PG_VERSION").exists()
            assert not (settings.data_dir / "postgres").is_symlink()

    async def test_is_not_listable_by_others(self, settings: Settings):
        data = make_data_folder(settings.data_dir)
        assert stat.S_IMODE(data.stat().st_mode) == (0o711 if os.geteuid() == 0 else 0o700)

    async def test_relative_path_is_resolved(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, make_settings
    ):
        monkeypatch.chdir(folder)
        assert make_data_folder(make_settings(Path("data")).data_dir) == folder / "data"


@needs_root
class TestPrivateHome:
    @pytest.fixture
    def home(self, folder: Path) -> Path:
        home = folder / "home"
        home.mkdir(mode=0o700)
        return home

    @pytest.fixture
    def settings(self, home: Path, make_settings) -> Settings:
        return make_settings(home / "data")

    async def test_stays_private(self, home: Path, settings: Settings, system_dir: Path):
        async with open_services(settings, system_dir=system_dir):
            assert stat.S_IMODE(home.stat().st_mode) == 0o700
            assert (settings.data_dir / "postgres").resolve().is_relative_to(system_dir)

    async def test_may_be_moved(self, home: Path, make_settings, system_dir: Path):
        async with open_services(make_settings(home / "old"), system_dir=system_dir) as services:
            await make_table(services.migration_url)
        (home / "old").rename(home / "new")
        async with open_services(make_settings(home / "new"), system_dir=system_dir) as services:
            assert await tables(services.migration_url) == 1

    async def test_begins_empty_when_the_data_folder_was_deleted(self, settings: Settings, system_dir: Path):
        async with open_services(settings, system_dir=system_dir) as services:
            await make_table(services.migration_url)
        shutil.rmtree(settings.data_dir)
        async with open_services(settings, system_dir=system_dir) as services:
            assert await tables(services.migration_url) == 0

    async def test_refuses_to_begin_empty_when_the_cluster_is_lost(
        self, settings: Settings, system_dir: Path
    ):
        async with open_services(settings, system_dir=system_dir):
            cluster = (settings.data_dir / "postgres").resolve()
        shutil.rmtree(cluster)
        with pytest.raises(Misconfigured, match=r"not a folder called .* restore it"):
            async with open_services(settings, system_dir=system_dir):
                pass

    async def test_copy_cannot_run_beside_the_original(
        self, home: Path, settings: Settings, make_settings, system_dir: Path
    ):
        async with open_services(settings, system_dir=system_dir):
            shutil.copytree(settings.data_dir, home / "copy", symlinks=True)
            with pytest.raises(Misconfigured, match="already runs"):
                async with open_services(make_settings(home / "copy"), system_dir=system_dir):
                    pass

    async def test_cluster_of_an_ordinary_user_keeps_its_owner(
        self, home: Path, settings: Settings, system_dir: Path
    ):
        cluster = make_data_folder(settings.data_dir) / "postgres"
        cluster.mkdir()
        os.chown(cluster, 12345, 12345)
        places = find_places(settings.data_dir, system_dir=system_dir)
        assert places.account == Account(name="12345", uid=12345, gid=12345)
        assert places.home == settings.data_dir


@needs_root
class TestPrograms:
    async def test_concurrent_copies_end_in_one(self, folder: Path, settings: Settings):
        places = find_places(make_data_folder(settings.data_dir), system_dir=folder / "system")
        copies = await asyncio.gather(*(asyncio.to_thread(postgres_programs, places) for _ in range(3)))
        assert len(set(copies)) == 1
        assert len(list((folder / "system").glob("bin-*"))) == 1

    async def test_remains_of_a_killed_copy_are_removed(self, folder: Path, settings: Settings):
        places = find_places(make_data_folder(settings.data_dir), system_dir=folder / "system")
        remains = folder / "system" / ".staging-killed"
        remains.mkdir(parents=True)
        postgres_programs(places)
        assert not remains.exists()
