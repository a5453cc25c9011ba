"""Users as the operator of the installation changes them: on the machine itself, asked for no credential."""

from __future__ import annotations

from dataclasses import dataclass

from app.core.emails import email_fault
from app.core.errors import Conflict, Invalid, NotFound
from app.core.passwords import Passwords, password_fault
from app.db.postgres.models.identity import User
from app.db.postgres.models.sessions import SessionEnd
from app.db.postgres.repositories.identity import Identities
from app.db.postgres.repositories.sessions import UserSessions
from app.db.session import Database


@dataclass(frozen=True, slots=True)
class PasswordSet:
    """`email` is the one to log in with from now on."""

    email: str
    sessions_ended: int


@dataclass(slots=True)
class UserService:
    """Passwords have at least `password_min_length` characters."""

    database: Database
    passwords: Passwords
    password_min_length: int

    async def set_password(
        self, email: str | None, password: str, *, new_email: str | None = None
    ) -> PasswordSet:
        """Sets a user's password, ends their sessions, and replaces their email where a new one is given.

        Without `email`, the user is the owner of the first organization.

        Raises:
            Invalid: the password is too short or too long, or `new_email` is no address.
            NotFound: there is no such user yet, or they are suspended.
            Conflict: `new_email` is another user's.
        """
        if fault := password_fault(password, self.password_min_length):
            raise Invalid(f"The password is refused: {fault}.")
        if new_email is not None and (fault := email_fault(new_email)):
            raise Invalid(f"The email {new_email!r} is refused: {fault}.")
        fresh_hash = await self.passwords.hash(password)
        async with self.database.system_work() as session:
            identities = Identities(session)
            found = await self._find(identities, email)
            user = await identities.locked_user(found.id, verified=found.password_hash)
            if user is None:
                raise NotFound(f"The user {found.email!r} is suspended, or was changed just now.")
            if new_email is not None:
                other = await identities.user_by_email(new_email)
                if other is not None and other.id != user.id:
                    raise Conflict(f"The email {new_email!r} is another user's.")
                user.email = new_email
            user.password_hash = fresh_hash
            ended = await UserSessions(session).end(user.id, SessionEnd.PASSWORD)
            return PasswordSet(user.email, len(ended))

    async def _find(self, identities: Identities, email: str | None) -> User:
        organization = await identities.first_organization()
        if organization is None:
            raise NotFound("There are no users yet: start `orrery serve` once.")
        if email is not None and (found := await identities.user_by_email(email.strip())):
            return found
        owner = await identities.user(await identities.owner_of(organization.id))
        if email is None:
            return owner
        raise NotFound(f"There is no user {email!r} here; the owner is {owner.email!r}.")
