"""The tokens of a person's session: access JWT, refresh token, CSRF token; all keyed from one secret.

A refresh token is made of its session, the number of refreshes before it, and a MAC of both. So nothing of
it is stored but that number, in the row of the session: every token of before is known again, however many
there were, and a refresh that is repeated, because its answer was lost or two windows asked at once, gets the
same successor. Nobody without the key can make up a used one, which would end somebody's session.
"""

from __future__ import annotations

import hmac
import re
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from app.core.security import derive_key

ALGORITHM = "HS256"
TYPE = "at+jwt"  # RFC 9068
ISSUER, AUDIENCE = "orrery", "orrery-api"
LEEWAY_S = 5
_LONGEST = 4096
_REFRESH = re.compile(r"orf_([0-9a-f]{32})_(0|[1-9][0-9]{0,17})_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """What a valid access token says. `expires_at` includes the leeway for clocks that differ."""

    user_id: UUID
    session_id: UUID
    org_id: UUID
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class RefreshClaims:
    """What a refresh token of ours says. Whether it is used, the session's row knows."""

    session_id: UUID
    generation: int


class SessionTokens:
    """`access_s` is the lifetime of an access token."""

    def __init__(self, secret: bytes, *, access_s: int = 900) -> None:
        self.access_s = access_s
        self._access_key = OctKey.import_key(derive_key(secret, "access-tokens"))
        self._refresh_key = derive_key(secret, "refresh-tokens")
        self._csrf_key = derive_key(secret, "csrf-tokens")
        self._attempt_key = derive_key(secret, "login-attempts")

    def access_token(self, *, user_id: UUID, session_id: UUID, org_id: UUID) -> str:
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user_id),
            "sid": str(session_id),
            "org": str(org_id),
            "iat": now,
            "exp": now + self.access_s,
        }
        return jwt.encode({"alg": ALGORITHM, "typ": TYPE}, claims, self._access_key, [ALGORITHM])

    def read_access_token(self, token: str, *, expired_too: bool = False) -> AccessClaims | None:
        """What `token` says, or None where it is not a valid one of ours. The session may have ended."""
        if token.count(".") != 2 or len(token) > _LONGEST:
            return None
        try:
            found = jwt.decode(token, self._access_key, [ALGORITHM])
            claims = found.claims | ({"exp": int(time.time()) + 1} if expired_too else {})
            _CLAIMS.validate(claims)
            if found.header.get("typ") != TYPE:
                return None
            return AccessClaims(
                user_id=UUID(str(claims["sub"])),
                session_id=UUID(str(claims["sid"])),
                org_id=UUID(str(claims["org"])),
                expires_at=datetime.fromtimestamp(claims["exp"], UTC) + timedelta(seconds=LEEWAY_S),
            )
        except (JoseError, ValueError, TypeError, OverflowError, RecursionError):
            return None

    def refresh_token(self, session_id: UUID, generation: int) -> str:
        """The one of the session after so many refreshes."""
        said = f"orf_{session_id.hex}_{generation}"
        return f"{said}_{_text(_mac(self._refresh_key, said.encode()))}"

    def read_refresh_token(self, token: str) -> RefreshClaims | None:
        """What `token` says, or None where it is not one of ours. It may be used, or its session over."""
        found = _REFRESH.fullmatch(token)
        if found is None:
            return None
        claims = RefreshClaims(UUID(found[1]), int(found[2]))
        ours = self.refresh_token(claims.session_id, claims.generation)
        return claims if hmac.compare_digest(ours, token) else None

    def csrf_token(self, session_id: UUID) -> str:
        """What a browser must send beside its cookies; only pages of our own origin can read it."""
        return _text(_mac(self._csrf_key, session_id.bytes))

    def attempt_digest(self, *parts: str) -> bytes:
        """Under which attempts to log in are counted: no address or email is stored for that."""
        return _mac(self._attempt_key, "\x1f".join(parts).encode())


_CLAIMS = jwt.JWTClaimsRegistry(
    leeway=LEEWAY_S,
    iss={"essential": True, "value": ISSUER},
    aud={"essential": True, "value": AUDIENCE},
    sub={"essential": True},
    sid={"essential": True},
    org={"essential": True},
    iat={"essential": True},
    exp={"essential": True},
)


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, sha256).digest()


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
