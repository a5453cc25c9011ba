"""Passwords: hashed, verified, and bounded."""

from __future__ import annotations

import asyncio
import threading

import pytest
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from app.core.errors import Unavailable
from app.core.passwords import Passwords
from tests.factories import CHEAP_ARGON2


def cheap(**room: int) -> Passwords:
    """For tests in which it does not matter how much work a hash is."""
    passwords = Passwords(**room)
    passwords.argon2 = CHEAP_ARGON2
    return passwords


class TestHash:
    async def test_is_argon2id_with_a_salt(self) -> None:
        passwords = Passwords()
        one, two = await passwords.hash("secret"), await passwords.hash("secret")
        assert one.startswith("$argon2id$")
        assert one != two


class TestVerify:
    @pytest.mark.parametrize(("given", "fits"), [("secret", True), ("Secret", False), ("", False)])
    async def test_tells_the_password_from_others(self, given: str, fits: bool) -> None:
        passwords = cheap()
        assert (await passwords.verify(given, await passwords.hash("secret"))).fits is fits

    @pytest.mark.parametrize("given", ["", "nobody", "anything"])
    async def test_lets_nobody_in_where_there_is_no_hash(self, given: str) -> None:
        verdict = await cheap().verify(given, None)
        assert (verdict.fits, verdict.fresh_hash) == (False, None)

    async def test_lets_nobody_in_by_a_hash_of_another_kind(self) -> None:
        assert not (await cheap().verify("nobody", "$2b$12$unknown")).fits

    async def test_does_the_same_work_for_a_missing_hash(self, monkeypatch: pytest.MonkeyPatch) -> None:
        passwords = Passwords()
        stored = await passwords.hash("secret")
        await passwords.verify("first", None)  # from now on nobody's hash is there
        verified = Argon2Hasher.verify
        seen: list[str] = []

        def counting(self: Argon2Hasher, password: str, hash: str) -> bool:
            seen.append(hash.rpartition("$")[0].rpartition("$")[0])
            return verified(self, password, hash)

        monkeypatch.setattr(Argon2Hasher, "verify", counting)
        await passwords.verify("wrong", stored)
        await passwords.verify("wrong", None)
        assert len(seen) == 2
        assert seen[0] == seen[1]  # algorithm and parameters

    async def test_offers_a_fresh_hash_where_the_parameters_are_old(self) -> None:
        old = PasswordHash([Argon2Hasher(time_cost=1)]).hash("secret")
        verdict = await Passwords().verify("secret", old)
        assert verdict.fits
        assert verdict.fresh_hash
        assert verdict.fresh_hash != old


class TestRoom:
    async def test_is_limited(self, monkeypatch: pytest.MonkeyPatch) -> None:
        passwords, free = cheap(concurrency=1, queue=1), threading.Event()
        hashed = Argon2Hasher.hash

        def waiting(self: Argon2Hasher, password: str, *, salt: bytes | None = None) -> str:
            free.wait()
            return hashed(self, password, salt=salt)

        monkeypatch.setattr(Argon2Hasher, "hash", waiting)
        tasks = [asyncio.create_task(passwords.hash("secret")) for _ in range(2)]
        await asyncio.sleep(0)
        for asking in (passwords.hash("secret"), passwords.verify("secret", None)):
            with pytest.raises(Unavailable) as raised:
                await asking
            assert raised.value.retry_after_s
        with pytest.raises(Unavailable):
            passwords.check_room()
        free.set()
        await asyncio.gather(*tasks)
        passwords.check_room()

    async def test_is_freed_by_whoever_goes_away(self) -> None:
        passwords = cheap(concurrency=1, queue=0)
        task = asyncio.create_task(passwords.hash("secret"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        passwords.check_room()

    async def test_is_for_no_more_hashes_at_once_than_allowed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        passwords, lock = cheap(concurrency=2, queue=100), threading.Lock()
        running, most = 0, 0
        hashed = Argon2Hasher.hash

        def watched(self: Argon2Hasher, password: str, *, salt: bytes | None = None) -> str:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            try:
                return hashed(self, password, salt=salt)
            finally:
                with lock:
                    running -= 1

        monkeypatch.setattr(Argon2Hasher, "hash", watched)
        tasks = [asyncio.create_task(passwords.hash("secret")) for _ in range(8)]
        await asyncio.sleep(0)
        for task in tasks[:4]:
            task.cancel()  # whoever goes away leaves the bound as it is
        await asyncio.gather(*tasks, return_exceptions=True)
        assert 1 <= most <= 2
