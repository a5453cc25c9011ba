"""API keys, and the keys that everything else is derived from."""

from __future__ import annotations

import hmac
import os
import secrets
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from uuid import UUID

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from app.core.config import Settings
from app.core.envelope import Key, MasterKeys
from app.core.errors import Misconfigured

MIN_KEY_LENGTH = 32


def derive_key(master: bytes, purpose: str) -> bytes:
    """A 32-byte key for one purpose (HKDF-SHA256, RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode()).derive(master)


def new_api_key(key_id: UUID) -> str:
    """A fresh key `orr_<id>_<secret>`; only its digest is ever stored."""
    return f"orr_{key_id.hex}_{secrets.token_urlsafe(32)}"


def api_key_digest(key: str, pepper: bytes) -> bytes:
    """HMAC-SHA256 of the whole key, by which it is found."""
    return hmac.new(pepper, key.encode(), sha256).digest()


def api_key_hint(key: str) -> str:
    """What may be shown of a key afterwards: enough to recognise it, too little to use it."""
    return f"{key[:8]}…{key[-4:]}"


def master_key(settings: Settings) -> bytes:
    """`ORRERY_MASTER_KEY`, which wraps the keys of secrets and of API keys.

    With embedded services one is generated once (0600) in the data folder. Raises `Misconfigured` where
    real services are used without a key: losing it would lose every secret.
    """
    return _key(settings, settings.master_key, "master")


def jwt_key(settings: Settings) -> bytes:
    """`ORRERY_JWT_KEY`, from which the keys of people's sessions are derived; found like `master_key`.

    Another key ends every session.
    """
    return _key(settings, settings.jwt_key, "jwt")


def _key(settings: Settings, given: SecretStr | None, name: str) -> bytes:
    variable = f"ORRERY_{name.upper()}_KEY"
    if given is not None:
        return _long_enough(given, variable)
    if not settings.embedded:
        raise Misconfigured(
            f"{variable} is not set. With ORRERY_DATABASE_URL and ORRERY_REDIS_URL it must be given, "
            "so that every replica has the same: try `openssl rand -hex 32`."
        )
    return generated_secret(_key_file(settings, name)).encode()


def master_key_file(settings: Settings) -> Path:
    """Where the master key is, or will be, unless `ORRERY_MASTER_KEY` is set."""
    return _key_file(settings, "master")


def _key_file(settings: Settings, name: str) -> Path:
    return settings.data_dir / "secrets" / f"{name}.key"


def _long_enough(given: SecretStr, variable: str) -> bytes:
    key = given.get_secret_value()
    if len(key) < MIN_KEY_LENGTH:
        raise Misconfigured(
            f"{variable} has {len(key)} characters; it needs at least {MIN_KEY_LENGTH}: "
            "try `openssl rand -hex 32`."
        )
    return key.encode()


def master_keys(settings: Settings) -> MasterKeys:
    """The master key, and `ORRERY_MASTER_KEY_PREVIOUS` while it is being changed."""
    previous = previous_master_key(settings)
    return MasterKeys(wrapping_key(master_key(settings)), wrapping_key(previous) if previous else None)


def previous_master_key(settings: Settings) -> bytes | None:
    given = settings.master_key_previous
    return _long_enough(given, "ORRERY_MASTER_KEY_PREVIOUS") if given is not None else None


def wrapping_key(master: bytes) -> Key:
    """What wraps data keys. Its id is derived: it tells which master key wrapped them, not the key."""
    return Key(UUID(bytes=derive_key(master, "master-key-id")[:16]), derive_key(master, "key-wrapping"))


def generated_secret(path: Path) -> str:
    """The secret in `path`, made there (0600, folder 0700) by whoever comes first."""
    if path.exists():
        return path.read_text()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    try:
        with suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        fresh.unlink()
    return path.read_text()
