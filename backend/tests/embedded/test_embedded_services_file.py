"""How other commands find the running platform."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from app.core.config import Settings
from app.core.errors import Misconfigured
from app.embedded import (
    Services,
    read_services_file,
    remove_services_file,
    write_services_file,
)
from app.embedded.lock import hold_lock

SERVICES = Services(
    database_url="postgresql://app:canary@db/x",
    migration_url="postgresql://owner:canary@db/x",
    redis_url="redis://:canary@cache",
)
API_URL = "http://127.0.0.1:8000"


def path_of(settings: Settings) -> Path:
    return settings.run_dir / "services.json"


def announce_as(pid: int, settings: Settings, *, before: timedelta = timedelta()) -> None:
    content = write_services_file(settings, SERVICES, api_url=API_URL)
    changed = {"pid": pid, "started_at": content.started_at - before}
    path_of(settings).write_text(content.model_copy(update=changed).model_dump_json())


@contextmanager
def stranger() -> Iterator[int]:
    """The number of a process that is not ours."""
    process = subprocess.Popen(["sleep", "60"])
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


class TestRead:
    def test_returns_what_was_written(self, settings: Settings):
        written = write_services_file(settings, SERVICES, api_url=API_URL)
        assert read_services_file(settings) == written
        assert (written.pid, written.api_url) == (os.getpid(), API_URL)

    def test_is_none_without_a_file(self, settings: Settings):
        assert read_services_file(settings) is None

    def test_is_none_when_the_process_is_dead(self, settings: Settings, dead_pid: int):
        announce_as(dead_pid, settings)
        assert read_services_file(settings) is None

    def test_is_none_when_the_process_is_a_zombie(self, settings: Settings):
        zombie = subprocess.Popen(["true"])
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        announce_as(zombie.pid, settings)
        assert read_services_file(settings) is None
        zombie.wait()

    def test_is_none_when_another_process_got_the_number(self, settings: Settings):
        with stranger() as pid:
            announce_as(pid, settings, before=timedelta(hours=1))
            assert read_services_file(settings) is None

    def test_believes_the_lock_when_the_clock_was_set_since(self, settings: Settings):
        announce_as(os.getpid(), settings, before=timedelta(days=1000))
        assert read_services_file(settings) is None
        with hold_lock(settings.run_dir / "lock"):
            assert read_services_file(settings) is not None

    def test_refuses_a_file_of_another_version(self, settings: Settings):
        write_services_file(settings, SERVICES, api_url=API_URL)
        path_of(settings).write_text('{"pid": 1, "unknown": true}')
        with pytest.raises(Misconfigured, match="restart 'orrery serve'"):
            read_services_file(settings)


class TestWrite:
    def test_is_readable_by_nobody_else(self, settings: Settings):
        write_services_file(settings, SERVICES, api_url=API_URL)
        assert stat.S_IMODE(path_of(settings).stat().st_mode) == 0o600

    def test_leaves_no_temporary_file(self, settings: Settings):
        write_services_file(settings, SERVICES, api_url=API_URL)
        assert os.listdir(settings.run_dir) == ["services.json"]

    def test_representation_hides_the_passwords(self, settings: Settings):
        assert "canary" not in repr(write_services_file(settings, SERVICES, api_url=API_URL))


class TestRemove:
    def test_takes_back_the_own_announcement(self, settings: Settings):
        write_services_file(settings, SERVICES, api_url=API_URL)
        remove_services_file(settings)
        assert not path_of(settings).exists()

    def test_leaves_that_of_another_process(self, settings: Settings):
        announce_as(os.getppid(), settings)
        remove_services_file(settings)
        assert path_of(settings).exists()

    def test_copes_with_a_missing_file(self, settings: Settings):
        remove_services_file(settings)
