"""One server for all tests of the API in a process: each test works in an organization of its own.

Modules that use it run on the loop of the session: `pytestmark = pytest.mark.asyncio(loop_scope="session")`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio

from app.core.config import Settings
from app.embedded import Services
from tests.factories import Factory, Member, Person
from tests.fixtures import Running, http_client, running_server, settings_for


@pytest.fixture(scope="session")
def settings(services: Services, services_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """With the usual lease: no test here waits for one to end, and a busy machine must not end one."""
    usual = settings_for(services, services_dir, blobs=tmp_path_factory.mktemp("blobs"))
    return usual.model_copy(update={"lease_s": 30})


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server(settings: Settings) -> AsyncIterator[Running]:
    async with running_server(settings) as running:
        yield running


@pytest.fixture
def make(server: Running) -> Factory:
    return Factory(server.resources)


@pytest_asyncio.fixture(loop_scope="session")
async def member(make: Factory) -> Member:
    """An owner of a fresh organization, with a key for its project."""
    return await make.member()


@pytest_asyncio.fixture(loop_scope="session")
async def client(server: Running, member: Member) -> AsyncIterator[httpx2.AsyncClient]:
    """Calls the server as `member`."""
    async with http_client(server, member.key) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def person(make: Factory) -> Person:
    """An owner of a fresh organization, who can log in."""
    return await make.person()


@pytest_asyncio.fixture(loop_scope="session")
async def anyone(server: Running) -> AsyncIterator[httpx2.AsyncClient]:
    """Calls without a credential; keeps cookies."""
    async with http_client(server, None) as opened:
        yield opened
