"""Fixtures over real parts: one embedded PostgreSQL and Redis per test process, a real HTTP server per test.

Tests do not share rows: each makes an organization of its own, which row-level security walls off.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
import pytest_asyncio
import uvicorn
from pydantic import SecretStr

from app.core.config import Settings
from app.db.migrate import migrate
from app.embedded import Services, open_services
from app.resources import Resources
from app.services.job_service import Drain
from app.services.runs import executor as executor_module
from app.workers.job_manager import make_drain
from main import create_app
from tests.factories import CHEAP_ARGON2, Factory, Member
from tests.tenant_watch import watched

MASTER_KEY = "tests-only-master-key-of-enough-length"
JWT_KEY = "tests-only-jwt-key-of-enough-length-too"


@pytest.fixture(scope="session", autouse=True)
def _tenants_are_named() -> Iterator[None]:
    """No statement of any test may forget whose rows it is about."""
    with watched():
        yield


@pytest.fixture(scope="session")
def services_dir() -> Iterator[Path]:
    """A folder of this test process that an unprivileged PostgreSQL may enter."""
    with tempfile.TemporaryDirectory(prefix="orrery-tests-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def services(services_dir: Path) -> AsyncIterator[Services]:
    """Embedded services with the newest schema."""
    settings = Settings(data_dir=services_dir / "data", _env_file=None)
    async with open_services(settings, system_dir=services_dir / "system") as running:
        await migrate(running.migration_url)
        await _hurry(running.database_url)
        yield running


async def _hurry(database_url: str) -> None:
    """Commits need not reach the disk before they are answered: nothing here outlives the machine."""
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    try:
        await connection.execute("ALTER ROLE CURRENT_USER SET synchronous_commit = off")
    finally:
        await connection.close()


def settings_for(services: Services, services_dir: Path, *, blobs: Path) -> Settings:
    return Settings(
        data_dir=services_dir / "shared",
        blob_url=str(blobs),
        database_url=SecretStr(services.database_url),
        redis_url=SecretStr(services.redis_url),
        master_key=SecretStr(MASTER_KEY),
        jwt_key=SecretStr(JWT_KEY),
        login_attempts_per_address=100_000,  # all tests come from one
        rate_limit_address=0,
        lease_s=5,
        sweep_interval_s=0.5,
        shutdown_grace_s=1,
        _env_file=None,
    )


@pytest.fixture
def settings(services: Services, services_dir: Path, tmp_path: Path) -> Settings:
    return settings_for(services, services_dir, blobs=tmp_path / "blobs")


@dataclass(frozen=True, slots=True)
class Running:
    """A server on loopback and what is behind it."""

    url: str
    resources: Resources

    def drain(self) -> Drain:
        """A worker in this process, without Celery around it."""
        return make_drain(self.resources, self.resources.executor.owner)


@asynccontextmanager
async def running_server(settings: Settings) -> AsyncIterator[Running]:
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        log_config=None,
        timeout_graceful_shutdown=1,
        proxy_headers=False,  # as `orrery serve` does
    )
    server = uvicorn.Server(config)
    server.capture_signals = no_signals  # type: ignore[method-assign]
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:
            if task.done():
                task.result()
                raise RuntimeError("the server did not start")
            await asyncio.sleep(0.01)
        app.state.resources.auth.passwords.argon2 = CHEAP_ARGON2  # as the hashes that the factory stores
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Running(f"http://127.0.0.1:{port}", app.state.resources)
    finally:
        server.should_exit = True
        await task


@contextmanager
def no_signals() -> Iterator[None]:
    yield


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Running]:
    async with running_server(settings) as running:
        yield running


@pytest.fixture
def make(server: Running) -> Factory:
    return Factory(server.resources)


@pytest.fixture
async def member(make: Factory) -> Member:
    """An owner of a fresh organization, with a key for its project."""
    return await make.member()


@pytest.fixture
async def client(server: Running, member: Member) -> AsyncIterator[httpx2.AsyncClient]:
    """Calls the server as `member`."""
    async with http_client(server, member.key) as opened:
        yield opened


def http_client(server: Running, key: str | None) -> httpx2.AsyncClient:
    """Without certificates: reading them costs 70 ms of CPU, and there is no TLS on loopback."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=30, trust_env=False, verify=False)


def claims_alone(monkeypatch: pytest.MonkeyPatch, running: Running) -> None:
    """Servers that other tests left open in this process take up no run: they have not the ways out of this
    one."""
    for name in ("claim_runs", "claim_cancelled"):
        real = getattr(executor_module, name)

        async def claimed(database: Any, *, owner: str, real: Any = real, **rest: Any) -> list[Any]:
            mine = owner == running.resources.executor.owner
            return await real(database, owner=owner, **rest) if mine else []

        monkeypatch.setattr(executor_module, name, claimed)
