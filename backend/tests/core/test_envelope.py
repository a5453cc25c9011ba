"""Sealed values open where they belong, with the key they name, and nowhere else."""

from __future__ import annotations

from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from app.core.envelope import (
    INSTALLATION,
    Key,
    MasterKeys,
    Place,
    UnknownKey,
    Unreadable,
    key_id,
    new_key,
    seal,
    unseal,
    unwrap,
    wrap,
)
from app.core.ids import new_id
from app.core.security import wrapping_key

KEY = Key(UUID("0199f0c1-0000-7000-8000-00000000000a"), bytes(range(32)))
PLACE = Place(UUID(int=1), UUID(int=2), "secrets.value")
# Made by OpenSSL through Node.js, not by our code: header, nonce, ciphertext, tag.
KNOWN = bytes.fromhex(
    "010199f0c100007000800000000000000a"
    "000102030405060708090a0b"
    "336ab33ba28aae7fad28e4abde875819ebb3a75d83173e125c"
    "4a666802ca0f9ac2ece2cb58bba7e54d"
)
places = st.builds(Place, st.uuids(), st.uuids(), st.text(max_size=40))
plaintexts = st.binary(max_size=2000)


class TestSeal:
    @given(plaintexts, places)
    def test_opens_to_what_was_sealed(self, plaintext: bytes, place: Place) -> None:
        assert unseal(KEY, seal(KEY, plaintext, place), place) == plaintext

    @given(plaintexts)
    def test_says_version_and_key_and_adds_45_bytes(self, plaintext: bytes) -> None:
        sealed = seal(KEY, plaintext, PLACE)
        assert (sealed[0], key_id(sealed), len(sealed)) == (1, KEY.id, 45 + len(plaintext))

    @given(st.binary(min_size=16, max_size=200))
    def test_shows_nothing_of_the_plaintext(self, plaintext: bytes) -> None:
        assert plaintext not in seal(KEY, plaintext, PLACE)

    def test_never_repeats_a_nonce(self) -> None:
        nonces = {seal(KEY, b"same", PLACE)[17:29] for _ in range(20_000)}
        assert len(nonces) == 20_000
        assert {len(nonce) for nonce in nonces} == {12}

    def test_is_aes_256_gcm_over_header_and_place(self) -> None:
        sealed = seal(KEY, b"island", PLACE)
        associated = b"\x01" + KEY.id.bytes + UUID(int=1).bytes + UUID(int=2).bytes + b"secrets.value"
        assert AESGCM(bytes(range(32))).decrypt(sealed[17:29], sealed[29:], associated) == b"island"


class TestUnseal:
    @given(plaintexts, st.data())
    def test_refuses_any_changed_bit(self, plaintext: bytes, data: st.DataObject) -> None:
        sealed = bytearray(seal(KEY, plaintext, PLACE))
        bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
        sealed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Unreadable):
            unseal(KEY, bytes(sealed), PLACE)

    @given(plaintexts, places, places)
    def test_refuses_another_organization_row_or_field(
        self, plaintext: bytes, place: Place, other: Place
    ) -> None:
        sealed = seal(KEY, plaintext, place)
        for wrong in (
            Place(other.org_id, place.row_id, place.field),
            Place(place.org_id, other.row_id, place.field),
            Place(place.org_id, place.row_id, other.field),
            Place(place.row_id, place.org_id, place.field),
        ):
            if wrong != place:
                with pytest.raises(Unreadable):
                    unseal(KEY, sealed, wrong)

    @given(plaintexts)
    def test_refuses_another_key_under_the_same_id(self, plaintext: bytes) -> None:
        with pytest.raises(Unreadable):
            unseal(Key(KEY.id, bytes(32)), seal(KEY, plaintext, PLACE), PLACE)

    def test_names_the_key_that_it_wants(self) -> None:
        with pytest.raises(UnknownKey, match=str(KEY.id)):
            unseal(new_key(), seal(KEY, b"", PLACE), PLACE)

    @given(st.binary(max_size=60))
    def test_of_anything_else_is_unreadable(self, junk: bytes) -> None:
        with pytest.raises(Unreadable):
            unseal(KEY, junk, PLACE)

    @given(plaintexts, st.integers(1, 100))
    def test_of_a_shortened_value_is_unreadable(self, plaintext: bytes, missing: int) -> None:
        with pytest.raises(Unreadable):
            unseal(KEY, seal(KEY, plaintext, PLACE)[:-missing], PLACE)

    def test_opens_what_the_first_version_sealed(self) -> None:
        assert unseal(KEY, KNOWN, PLACE) == b"the gold is on the island"


class TestWrap:
    MASTERS = MasterKeys(wrapping_key(b"m" * 32), wrapping_key(b"o" * 32))

    @pytest.mark.parametrize("master", [MASTERS.current, MASTERS.previous])
    def test_opens_with_the_current_and_the_previous_master_key(self, master: Key) -> None:
        key, org = new_key(), new_id()
        assert unwrap(self.MASTERS, wrap(master, key, org), key=key.id, org_id=org) == key

    def test_by_any_other_master_key_is_told(self) -> None:
        key = new_key()
        with pytest.raises(UnknownKey):
            unwrap(
                self.MASTERS,
                wrap(wrapping_key(b"x" * 32), key, INSTALLATION),
                key=key.id,
                org_id=INSTALLATION,
            )

    def test_does_not_open_for_another_organization_or_key(self) -> None:
        key, org = new_key(), new_id()
        wrapped = wrap(self.MASTERS.current, key, org)
        for wrong in ({"key": key.id, "org_id": new_id()}, {"key": new_id(), "org_id": org}):
            with pytest.raises(Unreadable):
                unwrap(self.MASTERS, wrapped, **wrong)

    def test_key_id_tells_nothing_of_the_master_key(self) -> None:
        one, two = wrapping_key(b"m" * 32), wrapping_key(b"m" * 31 + b"n")
        assert one.id != two.id
        assert one.id.bytes not in one.secret
        assert "secret" not in repr(one)

    def test_key_of_another_length_is_refused(self) -> None:
        with pytest.raises(ValueError, match="32 bytes"):
            Key(new_id(), b"short")
