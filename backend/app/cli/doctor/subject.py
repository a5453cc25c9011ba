"""What is examined: a running platform, services that the settings name, or a data folder at rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from app.core.config import Settings
from app.core.errors import Misconfigured
from app.embedded import ServicesFile, read_services_file

NOTHING_RUNS = "nothing runs on this data folder, and the doctor starts nothing"


@dataclass(frozen=True, slots=True)
class Subject:
    """The URLs are empty where there is nothing to look at now. They carry passwords."""

    settings: Settings
    environment: Mapping[str, str] = field(repr=False)
    running: ServicesFile | None
    unreadable: str
    """Why `services.json` cannot be read, if so."""
    database_url: str = field(repr=False)
    owner_url: str = field(repr=False)
    redis_url: str = field(repr=False)

    @property
    def data(self) -> Path:
        return self.settings.data_dir.resolve()


def find_subject(settings: Settings, environment: Mapping[str, str]) -> Subject:
    """Finds a running platform through `services.json`, else takes what the settings name."""
    running, unreadable = None, ""
    try:
        running = read_services_file(settings)
    except Misconfigured as error:
        unreadable = error.detail
    database = running.database_url if running else _given(settings.database_url)
    owner = running.migration_url if running else _given(settings.database_migration_url)
    redis = running.redis_url if running else _given(settings.redis_url)
    return Subject(
        settings=settings,
        environment=environment,
        running=running,
        unreadable=unreadable,
        database_url=database,
        owner_url=owner or database,
        redis_url=redis,
    )


def _given(url: SecretStr | None) -> str:
    return url.get_secret_value().strip() if url else ""
