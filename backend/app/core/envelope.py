"""Envelope encryption: values under data keys, data keys under a master key; AES-256-GCM (NIST SP 800-38D).

A sealed value is `version (1) | key id (16) | nonce (12) | ciphertext | tag (16)` bytes. The header and the
place where the value belongs are its associated data: moved to another organization, row or field it does
not open. Nonces are random: a key is good for 2^32 values (section 8.3), more than one organization has.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.core.ids import new_id

KEY_BYTES: Final = 32
INSTALLATION: Final = UUID(int=0)
"""Stands where an organization's id would, in what belongs to none."""

_VERSION: Final = b"\x01"
_HEADER_BYTES: Final = 17
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_DATA_KEY: Final = "data-key"


class Unreadable(Exception):
    """A sealed value does not open: it was changed, or belongs to another place or key."""


class UnknownKey(Unreadable):
    """The key that a value was sealed with is not at hand."""


@dataclass(frozen=True, slots=True)
class Key:
    """256 bits and the id by which sealed values name them."""

    id: UUID
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, this one {len(self.secret)}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sealed value belongs."""

    org_id: UUID
    row_id: UUID
    field: str

    @property
    def associated(self) -> bytes:
        """Unambiguous: the field is the only part of varying length."""
        return self.org_id.bytes + self.row_id.bytes + self.field.encode()


@dataclass(frozen=True, slots=True)
class MasterKeys:
    """The master key that is to be in force, and the one before it while a change is under way."""

    current: Key
    previous: Key | None = None

    @property
    def ids(self) -> frozenset[UUID]:
        return frozenset(key.id for key in (self.current, self.previous) if key is not None)

    def by_id(self, key_id: UUID) -> Key:
        """`UnknownKey` where it is neither."""
        for key in (self.current, self.previous):
            if key is not None and key.id == key_id:
                return key
        raise UnknownKey(f"the master key {key_id} is not at hand")


def fingerprint(key_id: UUID) -> str:
    """What people are shown of a master key's id, to tell one master key from another."""
    return key_id.hex[:8]


def new_key() -> Key:
    return Key(new_id(), os.urandom(KEY_BYTES))


def seal(key: Key, plaintext: bytes, place: Place) -> bytes:
    """`plaintext` for `place`; another nonce, so other bytes, each time."""
    header = _VERSION + key.id.bytes
    nonce = os.urandom(_NONCE_BYTES)
    return header + nonce + AESGCM(key.secret).encrypt(nonce, plaintext, header + place.associated)


def unseal(key: Key, sealed: bytes, place: Place) -> bytes:
    """What was sealed for `place`.

    Raises:
        UnknownKey: it was sealed with another key.
        Unreadable: it was changed, comes from another place, or is of no known version.
    """
    named = key_id(sealed)
    if named != key.id:
        raise UnknownKey(f"sealed with the key {named}, not with {key.id}")
    header, rest = sealed[:_HEADER_BYTES], sealed[_HEADER_BYTES:]
    nonce, ciphertext = rest[:_NONCE_BYTES], rest[_NONCE_BYTES:]
    try:
        return AESGCM(key.secret).decrypt(nonce, ciphertext, header + place.associated)
    except InvalidTag as error:
        raise Unreadable("it was changed, or belongs to another place") from error


def key_id(sealed: bytes) -> UUID:
    """Which key opens `sealed`; `Unreadable` where it is no sealed value of a known version."""
    if len(sealed) < _HEADER_BYTES + _NONCE_BYTES + _TAG_BYTES:
        raise Unreadable(f"{len(sealed)} bytes are too few for a sealed value")
    if sealed[:1] != _VERSION:
        raise Unreadable(f"version {sealed[0]} is not known; known: {_VERSION[0]}")
    return UUID(bytes=sealed[1:_HEADER_BYTES])


def wrap(master: Key, key: Key, org_id: UUID) -> bytes:
    """A data key of an organization, sealed with a master key."""
    return seal(master, key.secret, Place(org_id, key.id, _DATA_KEY))


def unwrap(masters: MasterKeys, wrapped: bytes, *, key: UUID, org_id: UUID) -> Key:
    """The data key with the id `key`.

    Raises:
        UnknownKey: its master key is neither the current nor the previous one.
        Unreadable: it was changed, or is another organization's or another key.
    """
    master = masters.by_id(key_id(wrapped))
    return Key(key, unseal(master, wrapped, Place(org_id, key, _DATA_KEY)))
