"""`orrery secrets rotate`: another master key, other data keys, everything sealed again."""

from __future__ import annotations

from app.cli.local_database import open_database
from app.core.config import Settings
from app.core.envelope import fingerprint
from app.core.errors import Misconfigured
from app.core.security import master_key_file, master_keys
from app.embedded import read_services_file
from app.services.rotation_service import Progress, Rotated, RotationService

_RECIPE = (
    "nothing would change: set ORRERY_MASTER_KEY to a new key (`openssl rand -hex 32`) and "
    "ORRERY_MASTER_KEY_PREVIOUS to the one in use, restart every process with both, and run this again"
)


def left_out(settings: Settings) -> str | None:
    """A sentence about the running `orrery serve`, where it lacks the master key that is to be in force."""
    running = read_services_file(settings)
    current = master_keys(settings).current.id
    if running is None or not running.master_keys or current in running.master_keys:
        return None
    return (
        f"'orrery serve' (process {running.pid}) was started without this master key (fingerprint "
        f"{fingerprint(current)}): it refuses secrets until it is started again with it."
    )


async def rotate_secrets(
    settings: Settings, database_url: str, *, data_keys: bool, progress: Progress
) -> Rotated:
    """Raises what `RotationService.rotate` raises, and `Misconfigured` where a change of the master key was
    begun without a new one."""
    masters = master_keys(settings)
    file = str(master_key_file(settings))
    if masters.previous is not None and masters.previous.id == masters.current.id:
        source = "ORRERY_MASTER_KEY" if settings.master_key is not None else f"the key in {file!r}"
        raise Misconfigured(f"ORRERY_MASTER_KEY_PREVIOUS is the same as {source}: {_RECIPE}.")
    async with open_database(settings, database_url) as database:
        rotation = RotationService(database, masters, settings.secrets_rotation_batch, progress)
        if masters.previous is not None and settings.master_key is None and await rotation.is_finished():
            raise Misconfigured(
                f"ORRERY_MASTER_KEY is not set, and the key in {file!r} is in force already: {_RECIPE}; "
                "to replace the data keys alone, leave ORRERY_MASTER_KEY_PREVIOUS out."
            )
        return await rotation.rotate(data_keys=data_keys)
