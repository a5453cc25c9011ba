"""`orrery secrets rotate`: another master key, other data keys, everything sealed again."""

from __future__ import annotations

from app.core.config import Settings
from app.core.security import master_keys
from app.db.connection import open_engine
from app.db.session import make_database
from app.services.rotation_service import Progress, Rotated, RotationService


async def rotate_secrets(
    settings: Settings, database_url: str, *, data_keys: bool, progress: Progress
) -> Rotated:
    """Raises what `RotationService.rotate` raises."""
    prepared = settings.database_prepared_statements
    async with open_engine(database_url, pool_size=2, prepared=prepared) as engine:
        rotation = RotationService(
            make_database(engine, _no_queue), master_keys(settings), settings.secrets_rotation_batch, progress
        )
        return await rotation.rotate(data_keys=data_keys)


async def _no_queue(queue: str) -> None:
    raise RuntimeError(f"a rotation queues nothing, but {queue!r} was to be woken")
