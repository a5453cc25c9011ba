"""API processes without services of their own: any number of them on one database, which outlives them."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from app.core.config import Settings
from app.embedded import Services, open_services
from tests.fixtures import JWT_KEY, MASTER_KEY
from tests.openai_compatible_double import Double, double
from tests.trust.runs.elsewhere import elsewhere
from tests.trust.runs.talking import Talker, model_settings
from tests.trust.serving import Platform, open_folder

SEED = int(os.environ.get("ORRERY_SEED", "1"))
"""Of everything that is drawn by lot; `ORRERY_SEED=n` repeats a run."""


@pytest.fixture
def lots(request: pytest.FixtureRequest) -> random.Random:
    """Draws by lot; each test has its own, so that it draws the same whatever else runs."""
    print(f"ORRERY_SEED={SEED}")  # noqa: T201
    return random.Random(f"{SEED} {request.node.name}")


@dataclass(frozen=True, slots=True)
class Fleet:
    """Makes API processes, `orrery serve --no-worker`, on the same PostgreSQL and Redis."""

    folder: Path
    services: Services
    model: Double

    @contextmanager
    def process(self, name: str, **settings: str) -> Iterator[Platform]:
        """Not running yet; stopped on leaving, and frozen no more."""
        home = self.folder / name
        home.mkdir()
        home.chmod(0o755)
        platform = Platform(home / "data", self._settings() | settings, ("--no-worker",))
        try:
            yield platform
        finally:
            if platform.running:
                platform.kill()

    def _settings(self) -> dict[str, str]:
        return {
            "ORRERY_DATABASE_URL": self.services.database_url,
            "ORRERY_DATABASE_MIGRATION_URL": self.services.migration_url,
            "ORRERY_REDIS_URL": self.services.redis_url,
            "ORRERY_MASTER_KEY": MASTER_KEY,
            "ORRERY_JWT_KEY": JWT_KEY,
            "ORRERY_BLOB_URL": str(self.folder / "blobs"),
            "ORRERY_EGRESS_ALLOW": "127.0.0.1",
            "ORRERY_SHUTDOWN_NOTICE_S": "0",
            "ORRERY_SHUTDOWN_GRACE_S": "1",
            **model_settings(self.model),
        }


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def fleet() -> AsyncIterator[Fleet]:
    with open_folder() as folder, elsewhere(double(Talker())) as model:
        settings = Settings(data_dir=folder / "services", _env_file=None)
        async with open_services(settings, system_dir=folder / "system") as services:
            yield Fleet(folder, services, model)


@pytest.fixture
def model(fleet: Fleet) -> Double:
    """The model that all agents ask."""
    fleet.model.most_open = 0
    return fleet.model


@pytest.fixture
def talker(model: Double) -> Iterator[Talker]:
    """What it answers."""
    talker = model.usual
    assert isinstance(talker, Talker)
    yield talker
    talker.crowd = 1


@pytest.fixture(scope="session")
def first_process(fleet: Fleet) -> Iterator[Platform]:
    with fleet.process("first") as process:
        yield process


@pytest.fixture
def api(first_process: Platform) -> Platform:
    """Running, also when the test before has killed it."""
    if not first_process.running:
        first_process.start()
    return first_process


@pytest.fixture(scope="session")
def second_process(fleet: Fleet) -> Iterator[Platform]:
    with fleet.process("second") as process:
        yield process


@pytest.fixture
def other(api: Platform, second_process: Platform) -> Platform:
    """A further process beside `api`, running."""
    if not second_process.running:
        second_process.start()
    return second_process


@pytest.fixture
def alone(api: Platform, second_process: Platform) -> Platform:
    """`api`, while no other process could take up its runs."""
    if second_process.running:
        second_process.kill()
    return api
