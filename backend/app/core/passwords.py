"""Passwords: Argon2id (RFC 9106) off the event loop, bounded in memory and in how many wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from pwdlib import PasswordHash
from pwdlib.exceptions import UnknownHashError

from app.core.errors import Unavailable

T = TypeVar("T")
MAX_PASSWORD_LENGTH = 1024
_BUSY_S = 2


def password_fault(password: str, least: int) -> str:
    """What is wrong with the length of a new password; empty if nothing is."""
    if len(password) < least:
        return f"a password needs at least {least} characters"
    if len(password) > MAX_PASSWORD_LENGTH:
        return f"a password has at most {MAX_PASSWORD_LENGTH} characters"
    return ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a password fits. `fresh_hash` is set where the stored one was made with older parameters."""

    fits: bool
    fresh_hash: str | None = None


class Passwords:
    """`concurrency` hashes at a time, 64 MiB each; `queue` more callers may wait for one.

    The threads are its own, so that a caller who goes away does not let another hash begin.
    """

    def __init__(self, *, concurrency: int = 2, queue: int = 32) -> None:
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="argon2")
        self._free = concurrency + queue
        self.argon2 = PasswordHash.recommended()

    def check_room(self) -> None:
        """`Unavailable` where nobody could wait now: for callers with work to do before they do."""
        if self._free <= 0:
            raise Unavailable("Too many logins at this moment; try again.", retry_after_s=_BUSY_S)

    async def hash(self, password: str) -> str:
        """`Unavailable` where too many wait."""
        return await self._run(lambda: self.argon2.hash(password))

    async def verify(self, password: str, stored: str | None) -> Verdict:
        """Whether `password` is that of the hash `stored`; the same work where there is none.

        `Unavailable` where too many wait.
        """
        return await self._run(lambda: self._verify(password, stored))

    def _verify(self, password: str, stored: str | None) -> Verdict:
        nobodys = self._nobodys_hash  # made by the first login, whoever that is
        try:
            verdict = Verdict(*self.argon2.verify_and_update(password, stored or nobodys))
        except UnknownHashError:
            return self._verify(password, None)
        return verdict if stored else Verdict(fits=False)

    @cached_property
    def _nobodys_hash(self) -> str:
        return self.argon2.hash("nobody")

    async def _run(self, work: Callable[[], T]) -> T:
        self.check_room()
        self._free -= 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._free += 1
