"""`orrery users set-password`: a password set on the machine itself, for who has none or forgot it."""

from __future__ import annotations

from app.core.config import Settings
from app.core.passwords import Passwords
from app.db.connection import open_engine
from app.db.session import make_database
from app.services.user_service import PasswordSet, UserService


async def set_password(
    settings: Settings, database_url: str, *, email: str | None, password: str, new_email: str | None
) -> PasswordSet:
    """Whoever can read the data folder may do this. Raises what `UserService.set_password` raises."""
    prepared = settings.database_prepared_statements
    async with open_engine(database_url, pool_size=2, prepared=prepared) as engine:
        users = UserService(make_database(engine, _no_queue), Passwords(), settings.password_min_length)
        return await users.set_password(email, password, new_email=new_email)


async def _no_queue(queue: str) -> None:
    raise RuntimeError(f"setting a password queues nothing, but {queue!r} was to be woken")
