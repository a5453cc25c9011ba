"""Keys and secrets."""

import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from pydantic import SecretStr

from app.core.config import Settings
from app.core.errors import Misconfigured
from app.core.ids import new_id
from app.core.security import (
    api_key_digest,
    api_key_hint,
    derive_key,
    generated_secret,
    jwt_key,
    master_key,
    new_api_key,
)

Read = Callable[[Settings], bytes]
REAL = {"database_url": SecretStr("postgresql://x"), "redis_url": SecretStr("redis://x")}


def settings(data_dir: Path, **values: Any) -> Settings:
    return Settings(data_dir=data_dir, _env_file=None, **values)


class TestGeneratedSecret:
    def test_is_readable_by_its_owner_only(self, tmp_path: Path) -> None:
        path = tmp_path / "secrets" / "key"
        generated_secret(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    def test_is_made_once(self, tmp_path: Path) -> None:
        assert generated_secret(tmp_path / "key") == generated_secret(tmp_path / "key")

    def test_is_one_for_all_who_come_at_the_same_moment(self, tmp_path: Path) -> None:
        together = Barrier(16)

        def come(_: int) -> str:
            together.wait()
            return generated_secret(tmp_path / "secrets" / "key")

        with ThreadPoolExecutor(16) as pool:
            seen = set(pool.map(come, range(16)))
        assert len(seen) == 1
        assert [p.name for p in (tmp_path / "secrets").iterdir()] == ["key"]

    def test_has_256_bits(self, tmp_path: Path) -> None:
        assert len(bytes.fromhex(generated_secret(tmp_path / "key"))) == 32


@pytest.mark.parametrize(("read", "name"), [(master_key, "master"), (jwt_key, "jwt")])
class TestKeys:
    """`master_key` and `jwt_key`."""

    def test_are_generated_with_embedded_services(self, tmp_path: Path, read: Read, name: str) -> None:
        key = read(settings(tmp_path))
        assert len(key) == 64
        assert (tmp_path / "secrets" / f"{name}.key").read_bytes() == key

    def test_are_demanded_with_real_services(self, tmp_path: Path, read: Read, name: str) -> None:
        with pytest.raises(Misconfigured, match=f"ORRERY_{name.upper()}_KEY is not set"):
            read(settings(tmp_path, **REAL))
        assert list(tmp_path.iterdir()) == []

    def test_that_are_short_are_refused_without_being_quoted(
        self, tmp_path: Path, read: Read, name: str
    ) -> None:
        with pytest.raises(Misconfigured) as raised:
            read(settings(tmp_path, **{f"{name}_key": SecretStr("tooshortsecret")}))
        assert "14 characters" in raised.value.detail
        assert "tooshortsecret" not in raised.value.detail

    def test_that_are_given_are_taken(self, tmp_path: Path, read: Read, name: str) -> None:
        assert read(settings(tmp_path, **{f"{name}_key": SecretStr("k" * 32)}, **REAL)) == b"k" * 32


class TestDerivedKeys:
    def test_differ_by_purpose(self) -> None:
        keys = {derive_key(b"m" * 32, purpose) for purpose in ("api-keys", "jwt", "")}
        assert len(keys) == 3
        assert {len(key) for key in keys} == {32}


class TestApiKeys:
    def test_carry_256_random_bits(self) -> None:
        one, two = (new_api_key(new_id()).split("_", 2)[2] for _ in range(2))
        assert one != two
        assert len(one) >= 43

    def test_are_found_by_a_digest_that_needs_the_pepper(self) -> None:
        key = new_api_key(new_id())
        assert api_key_digest(key, b"a" * 32) != api_key_digest(key, b"b" * 32)

    def test_are_recognised_by_a_hint_that_hides_the_secret(self) -> None:
        key = new_api_key(new_id())
        assert key.startswith(api_key_hint(key).split("…")[0])
        assert len(api_key_hint(key)) == 13
