"""What the doctor finds wrong in services, each provoked for real."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr
from redis import Redis as RedisClient

from app.cli.credentials import save_credentials
from app.cli.doctor.blobs import blobs_keep_what_they_get
from app.cli.doctor.broker import broker_answers
from app.cli.doctor.configuration import keys_are_there
from app.cli.doctor.database import (
    database_answers,
    notifications_arrive,
    saved_key_is_known,
    schema_is_current,
    server_findings,
)
from app.cli.doctor.encryption import master_key_is_in_force
from app.cli.doctor.finding import Level
from app.cli.doctor.subject import Subject
from app.cli.doctor.work import item_findings, work_gets_done
from app.core.config import Settings
from app.core.envelope import fingerprint
from app.core.errors import Misconfigured
from app.db.inspection import ServerFacts, WorkFacts
from app.db.migrate import migrate
from app.embedded import Services
from tests.cli.doctoring import NOWHERE, announced, subject_of, wrong
from tests.services.vault import Vault, master, masters, open_vault


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


@pytest.fixture
async def vault(services: Services, tmp_path: Path) -> AsyncIterator[Vault]:
    """An installation with a secret."""
    async with open_vault(services, tmp_path) as opened:
        await opened.open()
        await opened.secrets(await opened.tenant()).create("key", SecretStr("gold"))
        yield opened


class TestDataKeys:
    def subject(self, vault: Vault, settings: Settings, number: int) -> Subject:
        """For whom the master key is the one of that number."""
        return subject_of(settings, database_url=vault.database_url, master_key=SecretStr(master(number)))

    async def test_of_a_change_that_was_not_finished(self, vault: Vault, settings: Settings) -> None:
        assert await wrong(master_key_is_in_force, self.subject(vault, settings, 0)) == ""
        await vault.change_halfway()
        found = await wrong(master_key_is_in_force, self.subject(vault, settings, 1))
        assert found.startswith("fail: 1 data keys are wrapped by an earlier master key")
        assert "give the old one as ORRERY_MASTER_KEY_PREVIOUS and run `orrery secrets rotate`" in found
        await vault.rotate(masters(1, previous=0))
        assert await wrong(master_key_is_in_force, self.subject(vault, settings, 1)) == ""

    async def test_under_another_master_key_than_is_given(self, vault: Vault, settings: Settings) -> None:
        with pytest.raises(Misconfigured, match="another master key"):
            await wrong(master_key_is_in_force, self.subject(vault, settings, 7))

    async def test_are_not_looked_at_without_a_master_key(self, vault: Vault, empty: Settings) -> None:
        subject = subject_of(empty, database_url=vault.database_url)
        assert await wrong(master_key_is_in_force, subject) == ""
        assert not (empty.data_dir / "secrets").exists()


class TestMasterKey:
    """Through a change of it, where the old one was generated: what stands in the file is number 0."""

    def subject(self, vault: Vault, current: int | None, previous: int | None = None) -> Subject:
        folder = vault.data_dir / "secrets"
        folder.mkdir(exist_ok=True)
        (folder / "master.key").write_text(master(0))
        given = {"master_key": current, "master_key_previous": previous}
        settings = Settings(data_dir=vault.data_dir, _env_file=None)
        keys = {name: SecretStr(master(key)) for name, key in given.items() if key is not None}
        return subject_of(settings, database_url=vault.database_url, **keys)

    def print_of(self, number: int) -> str:
        return fingerprint(masters(number).current.id)

    async def test_of_the_file_alone_is_right(self, vault: Vault) -> None:
        assert await wrong(master_key_is_in_force, self.subject(vault, None)) == ""

    async def test_that_was_set_too_early_says_how_to_change_it(self, vault: Vault) -> None:
        found = await wrong(master_key_is_in_force, self.subject(vault, 1))
        assert f"secrets/master.key' (fingerprint {self.print_of(0)}) is in force" in found
        assert f"ORRERY_MASTER_KEY ({self.print_of(1)}) is not" in found
        assert "start with ORRERY_MASTER_KEY_PREVIOUS set to the file's key" in found
        assert "'orrery secrets rotate'" in found

    async def test_before_during_and_after_the_rotation(self, vault: Vault) -> None:
        both = self.subject(vault, 1, previous=0)
        found = await wrong(master_key_is_in_force, both)
        assert f"the previous one (fingerprint {self.print_of(0)}) is still in force" in found
        assert "run 'orrery secrets rotate'; keep both until then" in found
        assert "move" not in found
        await vault.change_halfway()
        found = await wrong(master_key_is_in_force, both)
        assert "still wraps 1 data keys → run 'orrery secrets rotate' again" in found
        assert "move" not in found
        found = await wrong(master_key_is_in_force, self.subject(vault, 1))
        assert "give the old one as ORRERY_MASTER_KEY_PREVIOUS" in found
        assert "move" not in found
        await vault.rotate(masters(1, previous=0))
        found = await wrong(master_key_is_in_force, both)
        assert f"ORRERY_MASTER_KEY (fingerprint {self.print_of(1)}) is in force" in found
        assert "is retired → move the file away" in found
        assert "ORRERY_MASTER_KEY_PREVIOUS is still set" in found

    async def test_that_the_running_platform_was_not_started_with(self, vault: Vault) -> None:
        old = (masters(0).current.id,)
        both = self.subject(vault, 1, previous=0)
        before = replace(both, running=announced(both.database_url, old))
        found = await wrong(master_key_is_in_force, before)
        assert f"without the new master key (fingerprint {self.print_of(1)})" in found
        assert "start 'orrery serve' again with both keys before" in found
        await vault.rotate(masters(1, previous=0))
        after = replace(self.subject(vault, 1), running=announced(both.database_url, old))
        found = await wrong(master_key_is_in_force, after)
        assert f"without the master key that is in force (fingerprint {self.print_of(1)})" in found
        mended = replace(after, running=announced(both.database_url, masters(1, previous=0).ids))
        assert "was started without" not in await wrong(master_key_is_in_force, mended)

    async def test_is_not_compared_among_the_settings_where_the_database_tells(self, vault: Vault) -> None:
        assert "is another key" not in await wrong(keys_are_there, self.subject(vault, 1))


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
            assert "may open 306" in found
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
        with pytest.raises(Misconfigured, match=sentence):
            await wrong(schema_is_current, subject)

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

    async def test_of_a_dead_worker_waits_its_turn_while_the_platform_runs(self, settings: Settings) -> None:
        left = WorkFacts(due=0, waited_s=0, expired=3, expired_for_s=600)
        (found,) = [f for f in item_findings(left, settings, works=True) if f.level is not Level.OK]
        assert found.level is Level.WARN
        assert "3 items of a dead worker wait to be tried again, one at a time" in found.what
        assert "orrery serve" not in found.remedy
        (found,) = [f for f in item_findings(left, settings, works=False) if f.level is not Level.OK]
        assert found.level is Level.FAIL
        assert "start 'orrery serve'" in found.remedy


class TestBlobs:
    async def test_in_a_place_that_is_a_file(self, empty: Settings, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        subject = subject_of(empty, blob_url=str(tmp_path / "file" / "blobs"))
        assert "cannot be made" in await wrong(blobs_keep_what_they_get, subject)

    async def test_of_a_kind_that_nobody_knows(self, empty: Settings) -> None:
        subject = subject_of(empty, blob_url="carrier-pigeon://loft")
        assert "carrier-pigeon" in await wrong(blobs_keep_what_they_get, subject)

    async def test_where_nothing_can_be_written_are_named_with_the_reason(self, empty: Settings) -> None:
        blobs = empty.data_dir / "blobs"
        blobs.mkdir(parents=True)
        (blobs / "doctor").touch()  # where the probe's folder should be
        said = await wrong(blobs_keep_what_they_get, subject_of(empty))
        assert f"{str(blobs)!r} does not work" in said
        assert f"{blobs}/doctor/" in said
        assert "Not a directory" in said
        assert "Debug" not in said

    async def test_leave_no_probe(self, empty: Settings) -> None:
        blobs = empty.data_dir / "blobs"
        blobs.mkdir(parents=True)
        assert await wrong(blobs_keep_what_they_get, subject_of(empty)) == ""
        assert [path for path in blobs.rglob("*") if path.is_file()] == []
