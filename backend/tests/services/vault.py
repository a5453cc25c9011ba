"""A database of its own for tests that change the installation's keys, which other tests go on using."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from app.core.config import Settings
from app.core.envelope import MasterKeys
from app.core.ids import new_id
from app.core.security import wrapping_key
from app.db.connection import async_url, open_engine
from app.db.migrate import migrate
from app.db.postgres.models.identity import Organization, Project
from app.db.postgres.repositories.identity import Identities
from app.db.session import Database, Tenant, make_database
from app.embedded import Services
from app.services.installation_service import api_key_pepper
from app.services.model_connection_service import ModelConnectionService
from app.services.rotation_service import Rotated, RotationService
from app.services.secret_service import SecretService


def master(number: int) -> str:
    return f"master-key-number-{number:04}-of-a-test-installation"


def masters(current: int, previous: int | None = None) -> MasterKeys:
    one, other = wrapping_key(master(current).encode()), previous
    return MasterKeys(one, None if other is None else wrapping_key(master(other).encode()))


class Killed(Exception):
    """Stands for kill -9 between two statements."""


@dataclass(frozen=True, slots=True)
class Mortal(Database):
    """Dies at the end of the transaction number `dies_in`, which is rolled back."""

    dies_in: int = 0
    begun: list[None] = field(default_factory=list)

    @asynccontextmanager
    async def unit_of_work(self, tenant: Tenant) -> AsyncIterator[AsyncSession]:
        async with Database.unit_of_work(self, tenant) as session:
            yield session
            self._die()

    @asynccontextmanager
    async def system_work(self) -> AsyncIterator[AsyncSession]:
        async with Database.system_work(self) as session:
            yield session
            self._die()

    def _die(self) -> None:
        self.begun.append(None)
        if len(self.begun) == self.dies_in:
            raise Killed


@dataclass(slots=True)
class Vault:
    """An installation with its own database; `in_force` is the number of its master key."""

    database: Database
    owner_url: str
    data_dir: Path
    in_force: int = 0

    @property
    def database_url(self) -> SecretStr:
        return SecretStr(self.database.engine.url.render_as_string(hide_password=False))

    def settings(self, **changes: Any) -> Settings:
        """Of a process that was given master keys by number."""
        keys = {name: SecretStr(master(number)) for name, number in changes.items()}
        real = {"database_url": SecretStr("postgresql://x"), "redis_url": SecretStr("redis://x")}
        return Settings(data_dir=self.data_dir, _env_file=None, **real, **keys)

    async def open(self) -> bytes:
        return await api_key_pepper(self.database, self.settings(master_key=self.in_force))

    async def tenant(self) -> Tenant:
        """A fresh organization with a project."""
        organization = Organization(id=new_id(), slug=f"o-{new_id().hex}", name="Test")
        project = Project(org_id=organization.id, id=new_id(), slug="default", name="Default")
        async with self.database.system_work() as session:
            await Identities(session).add(organization, project)
        return Tenant(organization.id, project.id)

    def secrets(self, tenant: Tenant, keys: MasterKeys | None = None) -> SecretService:
        return SecretService(self.database, tenant, keys or masters(self.in_force), 1000)

    def connections(self, tenant: Tenant) -> ModelConnectionService:
        return ModelConnectionService(self.database, tenant, masters(self.in_force), lambda _: None)

    async def rotate(
        self, keys: MasterKeys | None = None, *, database: Database | None = None, data_keys: bool = True
    ) -> Rotated:
        """In transactions of two rows."""
        rotation = RotationService(
            database or self.database, keys or masters(self.in_force), 2, lambda _: None
        )
        return await rotation.rotate(data_keys=data_keys)

    def mortal(self, dies_in: int) -> Mortal:
        return Mortal(self.database.engine, self.database.sessions, self.database.wake, dies_in=dies_in)

    async def change_halfway(self) -> None:
        """A change to the next master key that is killed before any data key is wrapped by it."""
        with suppress(Killed):
            await self.rotate(masters(self.in_force + 1, previous=self.in_force), database=self.mortal(2))

    async def as_owner(self, statement: str, **values: Any) -> list[Any]:
        """Runs SQL as the owner of the database, whom no wall binds."""
        engine = create_async_engine(async_url(self.owner_url))
        try:
            async with engine.begin() as connection:
                done = await connection.execute(text(statement), values)
                return [tuple(row) for row in done] if done.returns_rows else []
        finally:
            await engine.dispose()


_TEMPLATE = "vault_template"


@asynccontextmanager
async def open_vault(services: Services, data_dir: Path) -> AsyncIterator[Vault]:
    """Migrated once per cluster: the databases are copies."""
    name = f"vault_{new_id().hex}"
    admin = create_async_engine(async_url(services.migration_url), isolation_level="AUTOCOMMIT")
    async with admin.connect() as connection:
        found = text("SELECT 1 FROM pg_database WHERE datname = :name")
        if await connection.scalar(found, {"name": _TEMPLATE}) is None:
            await connection.execute(text(f"CREATE DATABASE {_TEMPLATE}"))
            await migrate(_of(services.migration_url, _TEMPLATE))
        await connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}"))
    owner_url = _of(services.migration_url, name)
    try:
        async with open_engine(_of(services.database_url, name), pool_size=8) as engine:
            yield Vault(make_database(engine, _nobody), owner_url, data_dir)
    finally:
        async with admin.connect() as connection:
            await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        await admin.dispose()


def _of(url: str, database: str) -> str:
    return make_url(url).set(database=database).render_as_string(hide_password=False)


async def _nobody(queue: str) -> None:
    raise AssertionError(f"nothing here queues work, but {queue!r} was woken")
