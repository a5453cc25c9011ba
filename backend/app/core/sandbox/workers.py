"""Worker processes that run restricted Python: Monty (https://github.com/pydantic/monty), in a jail.

Monty has no files, no network and no clock to spoil, and gives each run a session that nobody used before. It
bounds time, memory and recursion by itself. What its own checks do not reach (one multiplication of huge
integers) ends with the worker: `grace_s` after the time limit the worker is killed, another takes its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID
from weakref import WeakValueDictionary

from app.core.errors import AppError, Invalid, Unavailable
from app.core.sandbox.jail import Jail, Sandbox, find_jail, launcher

if TYPE_CHECKING:
    from pydantic_monty import AsyncMonty

_LONGEST_MESSAGE = 300
_START_S = 30
"""For a worker to be there, on a busy machine. A run itself has `timeout_s` and `grace_s`."""
_IDLE_BYTES = 384 * 2**20
"""Address space, most of it never touched, that a worker maps before it has done anything."""


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """What one run may cost. Beyond `processes` at once they wait, for `wait_s` at most.

    One organization gets all processes but one, so that its costly runs leave some to the others.
    """

    timeout_s: float = 0.25
    grace_s: float = 0.25
    memory_bytes: int = 32 * 2**20
    recursion: int = 100
    processes: int = 2
    wait_s: float = 5

    @property
    def address_space(self) -> int:
        """Bytes that the kernel lets a worker map: Monty, twice what it may use, and what it answers."""
        return _IDLE_BYTES + 3 * self.memory_bytes


@dataclass(frozen=True, slots=True)
class Wording:
    """What failures are called: the noun for what is run, the errors, the beginning of its settings."""

    noun: str
    failed: type[Invalid]
    too_costly: type[Invalid]
    setting: str


@dataclass(slots=True)
class Workers:
    """Processes of one kind, which start when the first run needs one."""

    limits: WorkerLimits
    wording: Wording
    stack: AsyncExitStack
    sandbox: Sandbox = Sandbox.AUTO
    jail: Jail | None = None
    _pool: AsyncMonty | None = None
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _places: WeakValueDictionary[UUID, asyncio.Semaphore] = field(default_factory=WeakValueDictionary)

    def place(self, org_id: UUID) -> asyncio.Semaphore:
        """What an organization's runs share."""
        place = self._places.get(org_id) or asyncio.Semaphore(max(1, self.limits.processes - 1))
        self._places[org_id] = place
        return place

    @asynccontextmanager
    async def in_turn(self, place: asyncio.Semaphore) -> AsyncIterator[None]:
        """Raises `Unavailable` where the organization's share stays busy."""
        try:
            async with asyncio.timeout(self.limits.wait_s):
                await place.acquire()
        except TimeoutError:
            raise self._busy() from None
        try:
            yield
        finally:
            place.release()

    async def run(
        self, code: str, names: Mapping[str, Any], *, log_bytes: int = 1, ending: str = ""
    ) -> tuple[Any, str]:
        """The value of the last line of `code` and our `ending`, with `names` bound to JSON values; and what
        was printed.

        Raises the errors of `wording`, and `Unavailable` where all workers stay busy.
        """
        from pydantic_monty import CollectString, MontyError  # noqa: PLC0415  (10 MB, for those who need it)

        printed = CollectString(log_bytes)
        try:
            pool = await self._started()
            async with pool.checkout(limits=_session_limits(self.limits)) as session:
                value = await session.feed_run(code + ending, inputs=dict(names), print_callback=printed)
        except MontyError as error:
            raise self._failure(error, log_bytes, lines=code.count("\n") + 1) from None
        except TimeoutError:
            raise self._busy() from None
        except OSError as error:
            raise Unavailable(f"No worker for {self.wording.noun} can be started: {error}.") from error
        return value, printed.output

    async def _started(self) -> AsyncMonty:
        from pydantic_monty import AsyncMonty  # noqa: PLC0415

        async with self._starting:
            if self._pool is None:
                program, space = monty_program(), self.limits.address_space
                jail = await asyncio.to_thread(find_jail, program, self.sandbox, memory_bytes=space)
                command = await asyncio.to_thread(jail.command, program, memory_bytes=space)
                self._pool = await self.stack.enter_async_context(
                    AsyncMonty(
                        binary_path=self.stack.enter_context(launcher(command)),
                        min_processes=0,
                        max_processes=self.limits.processes,
                        checkout_timeout=self.limits.wait_s,
                        request_timeout=_START_S,
                        feed_duration_limit_grace=self.limits.grace_s,
                    )
                )
                self.jail = jail
            return self._pool

    def _failure(self, error: Exception, log_bytes: int, *, lines: int) -> AppError:
        from pydantic_monty import MontyCrashedError, MontyError  # noqa: PLC0415

        noun, costly = self.wording.noun, self.wording.too_costly
        inner = error.exception() if isinstance(error, MontyError) else error
        if isinstance(error, MontyCrashedError) or isinstance(inner, TimeoutError):
            return costly(f"the {noun} takes longer than {self.limits.timeout_s:g} s")
        if isinstance(inner, MemoryError) and log_bytes > 1 and f"> {log_bytes} bytes" in str(inner):
            return costly(f"the {noun} prints more than {log_bytes} bytes")
        if isinstance(inner, MemoryError):
            return costly(f"the {noun} needs more than {self.limits.memory_bytes} bytes")
        if isinstance(inner, RecursionError):
            return costly(f"the {noun} recurses deeper than {self.limits.recursion} calls")
        return self.wording.failed(_cut(_placed(error, lines)))

    def _busy(self) -> Unavailable:
        return Unavailable(
            f"All of the {self.limits.processes} workers for {self.wording.noun} that may be used are busy "
            f"({self.wording.setting}_PROCESSES); try again."
        )


def monty_program() -> Path:
    """Raises `FileNotFoundError`."""
    from pydantic_monty._binary import find_monty_binary  # noqa: PLC0415

    return Path(find_monty_binary()).resolve()


def _placed(error: Exception, lines: int) -> str:
    """The message, with the line where the code went wrong if it has several."""
    frames = error.traceback() if hasattr(error, "traceback") else []
    line = frames[-1].line if frames else 1
    if line > lines:
        return f"its outputs are not there, or not JSON: {error}"
    return f"line {line}: {error}" if lines > 1 else str(error)


def _cut(message: str) -> str:
    return message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}…"


def _session_limits(limits: WorkerLimits) -> Any:
    return {
        "max_feed_duration_secs": limits.timeout_s,
        "max_memory": limits.memory_bytes,
        "max_recursion_depth": limits.recursion,
        "max_suspensions": 1,
        "max_total_sleep_secs": 0.0,
    }
