"""A collection with a worker by hand; each test works in an organization of its own.

Modules that use it run on the loop of the session: `pytestmark = pytest.mark.asyncio(loop_scope="session")`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from app.embedded import Services
from app.resources import Resources
from tests.workers.world import World, make_world, open_world_resources


@pytest.fixture(scope="session")
def blob_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("blobs")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def resources(
    services: Services, services_dir: Path, blob_folder: Path
) -> AsyncIterator[Resources]:
    async with open_world_resources(services, services_dir, blob_folder) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def world(resources: Resources, blob_folder: Path) -> World:
    return await make_world(resources, blob_folder)
