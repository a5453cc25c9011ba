"""What the operator reads when nothing starts."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

import pytest

from app.core.config import Settings
from app.core.errors import Misconfigured
from app.embedded import open_services
from app.embedded.failures import explained, last_lines


async def failure(settings: Settings, system_dir: Path) -> str:
    with pytest.raises(Misconfigured) as caught:
        async with open_services(settings, system_dir=system_dir):
            pass
    return caught.value.detail


class TestExplained:
    @pytest.mark.parametrize(
        ("number", "remedy"),
        [
            (errno.ENOSPC, "free some space"),
            (errno.EROFS, "set ORRERY_DATA_DIR to a folder of this user"),
            (errno.EACCES, "set ORRERY_DATA_DIR to a folder of this user"),
            (errno.EIO, "set ORRERY_DATA_DIR to another folder"),
        ],
    )
    def test_names_the_place_and_the_remedy(self, folder: Path, number: int, remedy: str):
        with pytest.raises(Misconfigured, match=f"'/some/file'.*{remedy}"), explained(folder):
            raise OSError(number, os.strerror(number), "/some/file")

    def test_lets_other_errors_pass(self, folder: Path):
        with pytest.raises(ZeroDivisionError), explained(folder):
            raise ZeroDivisionError


class TestLastLines:
    def test_shows_only_what_was_written_since(self, folder: Path):
        log = folder / "log"
        log.write_text("old\nnew one\n\n  new two\n")
        assert last_lines(log, offset=4) == "new one | new two"


class TestOpening:
    async def test_data_folder_below_a_file(self, folder: Path, make_settings, system_dir: Path):
        (folder / "file").touch()
        settings = make_settings(folder / "file" / "data")
        assert re.search("cannot be used .*ORRERY_DATA_DIR", await failure(settings, system_dir))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    async def test_folder_that_may_not_be_written(self, folder: Path, make_settings, system_dir: Path):
        folder.chmod(0o500)
        settings = make_settings(folder / "data")
        assert re.search("may not write .*ORRERY_DATA_DIR", await failure(settings, system_dir))
        folder.chmod(0o700)

    async def test_too_little_time(self, settings: Settings, system_dir: Path):
        hurried = settings.model_copy(update={"embedded_start_timeout_s": 0.01})
        assert "took over 0.01 s" in await failure(hurried, system_dir)

    async def test_failed_creation_leaves_nothing_half_made(self, settings: Settings, system_dir: Path):
        hurried = settings.model_copy(update={"embedded_start_timeout_s": 0.01})
        await failure(hurried, system_dir)
        async with open_services(settings, system_dir=system_dir) as services:
            assert services.owned == ("postgresql", "redis")

    async def test_damaged_configuration_is_quoted_from_the_log(self, used: Settings, system_dir: Path):
        async with open_services(used, system_dir=system_dir):
            configuration = used.data_dir / "postgres" / "postgresql.conf"
        configuration.write_text("no_such_setting = 1\n")
        assert 'unrecognized configuration parameter "no_such_setting"' in await failure(used, system_dir)

    async def test_lost_password(self, used: Settings, system_dir: Path):
        async with open_services(used, system_dir=system_dir):
            pass
        shutil.rmtree(used.data_dir / "secrets")
        assert "restore that folder" in await failure(used, system_dir)

    async def test_next_start_works_after_a_failure(self, used: Settings, system_dir: Path):
        async with open_services(used, system_dir=system_dir):
            password = used.data_dir / "secrets" / "postgres_owner"
        right = password.read_text()
        password.write_text("wrong")
        await failure(used, system_dir)
        password.write_text(right)
        async with open_services(used, system_dir=system_dir) as services:
            assert services.owned == ("postgresql", "redis")
