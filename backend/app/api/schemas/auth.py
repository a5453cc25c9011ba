"""Logins, sessions, API keys and the caller on the wire."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, Field, SecretStr
from pydantic_core import PydanticCustomError

from app.api.schemas.common import Body, Name, Read, example
from app.core.emails import MAX_EMAIL_LENGTH
from app.core.passwords import MAX_PASSWORD_LENGTH
from app.core.permissions import Permission

Password = Annotated[
    SecretStr, Field(min_length=1, max_length=MAX_PASSWORD_LENGTH, examples=["correct horse battery staple"])
]
Token = Annotated[SecretStr, Field(min_length=1, max_length=4096)]


class LoginCreate(Body):
    """`organization` is needed by members of several."""

    model_config = example(**{"email": "ada@example.com", "password": "correct horse battery staple"})

    email: Annotated[str, Field(min_length=1, max_length=MAX_EMAIL_LENGTH, examples=["ada@example.com"])]
    password: Password
    organization: Annotated[str, Field(max_length=100, description="Id or slug")] | None = None
    cookie: Annotated[
        bool,
        Field(
            description="For browsers: the tokens come as HttpOnly cookies instead of in the answer, whose "
            "`csrf_token` has to be sent as `X-CSRF-Token` with whatever changes something."
        ),
    ] = False


class RefreshCreate(Body):
    """Without a token, that of the cookie is taken."""

    model_config = example(**{"refresh_token": "the one of the answer before"})

    refresh_token: Token | None = None


class GrantRead(Read):
    """`access_token` is good for `expires_in` seconds; `refresh_token` once, for the next grant.

    With cookies both are null, and `csrf_token` has to be sent as `X-CSRF-Token` with whatever changes
    something.
    """

    token_type: Literal["bearer"] = "bearer"  # noqa: S105  (OAuth's word)
    access_token: str | None
    expires_in: int
    refresh_token: str | None
    csrf_token: str | None
    session_id: UUID
    session_expires_at: datetime
    user_id: UUID
    org_id: UUID


class SessionRead(Read):
    """One login. `ip_hint` is the network that it was last refreshed from; `current` is the caller's own."""

    id: UUID
    org_id: Annotated[UUID, Field(validation_alias="organization_id")]
    user_agent: str
    ip_hint: Annotated[str, Field(validation_alias="address_hint")]
    browser: bool
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    current: bool = False


class SessionsEnded(Read):
    ended: int


class PasswordChange(Body):
    model_config = example(
        **{"current_password": "correct horse", "new_password": "correct horse battery staple"}
    )

    current_password: Password
    new_password: Password


class Named(Read):
    id: UUID
    slug: str
    name: str


class AuthenticatedBy(Read):
    """By which API key or session."""

    kind: Literal["api_key", "session"]
    id: UUID | None
    expires_at: datetime | None


class Me(Read):
    """Whom the credential stands for, where, and what it may do."""

    user_id: UUID
    email: str
    name: str
    org_id: UUID
    organization: Named
    project_id: UUID | None
    project: Named | None
    role: str
    permissions: list[str]
    authenticated_by: AuthenticatedBy


_LAST_YEAR = 9998  # of which every UTC offset is still a date


def _to_come(moment: datetime) -> datetime:
    if moment <= datetime.now(UTC) or moment.year > _LAST_YEAR:
        raise PydanticCustomError(
            "not_to_come", "must lie in the future, at the latest in {last}", {"last": _LAST_YEAR}
        )
    return moment


class KeyCreate(Body):
    """`permissions` can only narrow the caller's; without them the key has the caller's.

    A key that is made with a key expires with it at the latest.
    """

    model_config = example(name="Nightly import", permissions=["documents:write"])

    name: Name
    permissions: Annotated[list[Permission], Field(max_length=100)] | None = None
    project: str | None = None
    expires_at: Annotated[AwareDatetime, AfterValidator(_to_come)] | None = None


class KeyRead(Read):
    """`made_by` is the key that it was made with, if it was a key."""

    id: UUID
    name: str
    hint: str
    project_id: UUID | None
    permissions: list[str] | None
    made_by: UUID | None
    expires_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime


class KeyCreated(KeyRead):
    """`key` is shown this once."""

    key: str
