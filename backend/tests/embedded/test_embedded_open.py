"""What open services offer, and what they refuse."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest
import pytest_asyncio
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from app.core.config import Settings
from app.core.errors import Misconfigured
from app.embedded import Services, open_services
from app.embedded.ports import LOOPBACK

pytestmark = pytest.mark.asyncio(loop_scope="module")


@asynccontextmanager
async def connection(url: str) -> AsyncIterator[asyncpg.Connection]:
    opened = await asyncpg.connect(url)
    try:
        yield opened
    finally:
        await opened.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(
    tmp_path_factory: pytest.TempPathFactory, make_settings, system_dir: Path
) -> AsyncIterator[tuple[Settings, Services]]:
    settings = make_settings(tmp_path_factory.mktemp("open") / "data")
    async with open_services(settings, system_dir=system_dir) as services:
        yield settings, services


@pytest.fixture
def services(opened: tuple[Settings, Services]) -> Services:
    return opened[1]


class TestPostgres:
    async def test_lets_the_owner_create_the_vector_extension(self, services: Services):
        async with connection(services.migration_url) as owner:
            await owner.execute("CREATE EXTENSION IF NOT EXISTS vector")
            assert await owner.fetchval("SELECT '[1,2]'::vector <-> '[1,3]'::vector") == 1

    async def test_application_role_is_bound_by_row_level_security(self, services: Services):
        async with connection(services.database_url) as application:
            role = await application.fetchrow("SELECT * FROM pg_roles WHERE rolname = current_user")
        assert role["rolname"] == "orrery_app"
        assert not any(role[flag] for flag in ("rolsuper", "rolbypassrls", "rolinherit", "rolcreaterole"))

    async def test_refuses_a_wrong_password(self, services: Services):
        url = services.database_url.replace("orrery_app:", "orrery_app:x")
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(url)

    async def test_survives_power_failures_and_speaks_utf8(self, services: Services):
        async with connection(services.database_url) as application:
            assert await application.fetchval("SHOW fsync") == "on"
            assert await application.fetchval("SHOW server_encoding") == "UTF8"

    async def test_has_no_unix_socket(self, services: Services):
        async with connection(services.migration_url) as owner:
            assert await owner.fetchval("SHOW unix_socket_directories") == ""

    async def test_listens_on_the_loopback_interface_only(self, services: Services):
        port = int(services.database_url.rsplit(":", 1)[1].split("/")[0])
        listening = {
            entry.laddr.ip
            for entry in psutil.net_connections(kind="tcp")
            if entry.status == psutil.CONN_LISTEN and entry.laddr.port == port
        }
        assert listening == {LOOPBACK}

    async def test_does_not_see_the_environment_of_the_platform(self, opened: tuple[Settings, Services]):
        cluster = (opened[0].data_dir / "postgres").resolve()
        pid = int((cluster / "postmaster.pid").read_text().splitlines()[0])
        assert "HOME" not in psutil.Process(pid).environ()

    async def test_a_failing_statement_is_not_logged(self, opened: tuple[Settings, Services]):
        async with connection(opened[1].migration_url) as owner:
            with pytest.raises(asyncpg.SyntaxOrAccessError):
                await owner.execute("SELECT no_column_canary_1234 FROM pg_roles WHERE 'canary-5678' = ''")
        assert "canary-5678" not in (opened[0].data_dir / "logs" / "postgresql.log").read_text()


class TestRedis:
    async def test_answers_with_the_password(self, services: Services):
        async with Redis.from_url(services.redis_url) as client:
            assert await client.ping()

    async def test_requires_the_password(self, services: Services):
        async with Redis.from_url("redis://" + services.redis_url.split("@")[1]) as client:
            with pytest.raises(AuthenticationError):
                await client.ping()

    async def test_keeps_the_password_out_of_the_command_line(self, services: Services):
        password = services.redis_url.split(":")[2].split("@")[0]
        lines = [p.info["cmdline"] or [] for p in psutil.process_iter(["cmdline"])]
        assert not any(password in word for line in lines for word in line)

    async def test_keeps_nothing_on_disk_and_evicts_nothing(self, services: Services):
        async with Redis.from_url(services.redis_url, decode_responses=True) as client:
            found = {
                name: (await client.config_get(name))[name]
                for name in ("save", "appendonly", "maxmemory-policy")
            }
        assert found == {"save": "", "appendonly": "no", "maxmemory-policy": "noeviction"}


class TestFolder:
    async def test_secrets_are_readable_by_nobody_else(self, opened: tuple[Settings, Services]):
        secrets = opened[0].data_dir / "secrets"
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in secrets.iterdir()}
        assert {"postgres_owner", "postgres_app", "redis"} <= set(modes)
        assert set(modes.values()) == {0o600}
        assert stat.S_IMODE(secrets.stat().st_mode) == 0o700

    async def test_second_platform_is_refused_with_the_pid_of_the_first(
        self, opened: tuple[Settings, Services], system_dir: Path
    ):
        holder = psutil.Process().pid
        with pytest.raises(Misconfigured, match=rf"process {holder}\b"):
            async with open_services(opened[0], system_dir=system_dir):
                pass

    async def test_representation_hides_the_passwords(self, services: Services):
        assert repr(services) == "Services(owned=('postgresql', 'redis'))"


class TestPassThrough:
    async def test_starts_nothing_when_both_urls_are_given(self, folder: Path):
        settings = Settings(
            data_dir=folder / "data",
            database_url=SecretStr("postgresql://app@db/x"),
            database_migration_url=SecretStr("postgresql://owner@db/x"),
            redis_url=SecretStr("redis://cache"),
        )
        async with open_services(settings) as services:
            assert services == Services(
                database_url="postgresql://app@db/x",
                migration_url="postgresql://owner@db/x",
                redis_url="redis://cache",
            )
        assert not settings.data_dir.exists()

    async def test_migrates_by_the_database_url_without_another(self, folder: Path):
        settings = Settings(
            data_dir=folder / "data",
            database_url=SecretStr("postgresql://db/x"),
            database_migration_url=None,
            redis_url=SecretStr("redis://cache"),
        )
        async with open_services(settings) as services:
            assert services.migration_url == "postgresql://db/x"

    async def test_starts_only_redis_when_only_the_database_is_given(self, folder: Path, system_dir: Path):
        settings = Settings(
            data_dir=folder / "data", database_url=SecretStr("postgresql://db/x"), redis_url=None
        )
        async with open_services(settings, system_dir=system_dir) as services:
            assert services.owned == ("redis",)
        assert not (settings.data_dir / "postgres").exists()

    async def test_refuses_a_migration_url_alone(self, folder: Path):
        settings = Settings(
            data_dir=folder / "data",
            database_url=None,
            database_migration_url=SecretStr("postgresql://owner@db/x"),
            redis_url=SecretStr("redis://cache"),
        )
        with pytest.raises(Misconfigured, match="ORRERY_DATABASE_URL"):
            async with open_services(settings):
                pass


class TestEnd:
    async def test_leaves_no_process_behind(self, used: Settings, system_dir: Path):
        before = set(psutil.pids())
        async with open_services(used, system_dir=system_dir):
            started = [p for p in psutil.process_iter() if p.pid not in before]
        psutil.wait_procs(started, timeout=5)
        assert not [p for p in psutil.Process().children(recursive=True) if p in started]

    async def test_stops_the_services_when_the_block_is_cancelled(self, used: Settings, system_dir: Path):
        ready = asyncio.Event()

        async def hold() -> None:
            async with open_services(used, system_dir=system_dir):
                ready.set()
                await asyncio.sleep(3600)

        task = asyncio.create_task(hold())
        await ready.wait()
        cluster = (used.data_dir / "postgres").resolve()
        task.cancel()
        await asyncio.wait([task])
        assert not (cluster / "postmaster.pid").exists()
