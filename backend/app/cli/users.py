"""`orrery users set-password`: a password set on the machine itself, for who has none or forgot it."""

from __future__ import annotations

from app.cli.local_database import open_database
from app.core.config import Settings
from app.core.passwords import Passwords
from app.services.user_service import PasswordSet, UserService


async def set_password(
    settings: Settings, database_url: str, *, email: str | None, password: str, new_email: str | None
) -> PasswordSet:
    """Whoever can read the data folder may do this. Raises what `UserService.set_password` raises."""
    async with open_database(settings, database_url) as database:
        users = UserService(database, Passwords(), settings.password_min_length)
        return await users.set_password(email, password, new_email=new_email)
