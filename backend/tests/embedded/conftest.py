"""Folders that an unprivileged user can reach, because PostgreSQL runs as one when the tests run as root."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.core.config import Settings
from app.embedded import open_services

MakeSettings = Callable[[Path], Settings]


def _open_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="orrery-embedded-")).resolve()
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def system_dir() -> Iterator[Path]:
    """Stands for /var/lib/orrery; shared, so the programs are copied once."""
    folder = _open_folder()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A parent of data folders that everyone may traverse."""
    folder = _open_folder()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def make_settings() -> MakeSettings:
    """Settings with everything embedded, whatever the environment says."""

    def make(data_dir: Path) -> Settings:
        return Settings(data_dir=data_dir, database_url=None, database_migration_url=None, redis_url=None)

    return make


@pytest.fixture(scope="session")
def template(make_settings: MakeSettings, system_dir: Path) -> Iterator[Path]:
    """A data folder in which everything was started and stopped once."""

    async def fill(settings: Settings) -> None:
        async with open_services(settings, system_dir=system_dir):
            pass

    folder = _open_folder()
    asyncio.run(fill(make_settings(folder / "data")))
    yield folder / "data"
    shutil.rmtree(folder)


@pytest.fixture
def used(template: Path, settings: Settings) -> Settings:
    """Settings of a data folder with an existing database (copying is quicker than making one)."""
    subprocess.run(["cp", "-a", str(template), str(settings.data_dir)], check=True)
    return settings


@pytest.fixture
def settings(make_settings: MakeSettings, folder: Path) -> Settings:
    return make_settings(folder / "data")
