"""The credential of a request: how it was presented, and whether it still holds while a stream is open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic

import structlog

from app.core.constants import REVOCATION_BITES_S
from app.core.errors import AppError
from app.core.permissions import Permission
from app.services.auth_service import AuthContext, AuthService

logger = structlog.get_logger(__name__)

_LOOK_UP_S = 1.0


@dataclass(frozen=True, slots=True)
class Credential:
    """`token` is an API key or an access token. `project` is what `X-Project-Id` names."""

    token: str = field(repr=False)
    by_cookie: bool
    project: str | None


@dataclass(slots=True)
class Standing:
    """Whether the caller may still do what the route demands. Streams ask before each thing they send.

    `holds` asks the database at most every `every_s`, so that what ended the credential, or took the
    permission away, ends the stream within `REVOCATION_BITES_S`. While it is being asked nothing is sent.
    """

    auth: AuthService
    credential: Credential
    demanded: Sequence[Permission]
    every_s: float
    clock: Callable[[], float] = monotonic
    in_doubt: bool = field(default=False, init=False)
    _proven: float = field(init=False)

    def __post_init__(self) -> None:
        self._proven = self.clock()

    async def renewed(self, *, max_age_s: float) -> AuthContext:
        """The caller's context, younger than `max_age_s`; raises where the credential holds no more."""
        context = await self.auth.authenticate(
            self.credential.token, project=self.credential.project, max_age_s=max_age_s
        )
        for permission in self.demanded:
            context.demand(permission)
        return context

    async def holds(self) -> bool:
        """What cannot be proven does not hold; `in_doubt` then."""
        asked = self.clock()
        if asked - self._proven < self.every_s:
            return True
        try:
            await self.renewed(max_age_s=REVOCATION_BITES_S - _LOOK_UP_S - self.every_s)
        except AppError as error:
            logger.info("stream_ended", reason=error.detail)
            return False
        except Exception as error:
            logger.warning("stream_not_proven", error=repr(error))
            self.in_doubt = True
            return False
        self._proven = asked
        return True
