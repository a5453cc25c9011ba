"""`orrery runs tail`: a run's event log followed to its end, whatever becomes of connection and server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from app.cli.client import ApiError, Client, Unreachable, segment
from app.core.errors import AppError, Misconfigured, RateLimited

Connect = Callable[[], AbstractContextManager[Client]]
"""Finds the server anew: one that is started again may answer elsewhere."""
TERMINAL = ("RUN_FINISHED", "RUN_ERROR")
_TEMPORARY = (Unreachable.code, RateLimited.code, Misconfigured.code)
_PAUSES_S = (0.2, 0.5, 1.0, 2.0)
_PATIENCE_S = 120
"""A server that is started again is back by then."""


@dataclass(slots=True)
class Tail:
    """`seen` is the last event that was handed out; `run` is set once the run is known to have ended.

    `away` is told why there is nothing to read for a while, once for each time.
    """

    connect: Connect
    run_id: str
    seen: int = 0
    away: Callable[[str], None] = lambda _: None
    run: dict[str, Any] | None = field(default=None, init=False)
    _met: bool = field(default=False, init=False)

    def events(self) -> Iterator[dict[str, Any]]:
        """Every envelope behind `seen`, once, until the terminal one, or until there can be no more.

        Raises `ApiError` where the server refuses, or `Misconfigured` where there is none to begin with.
        """
        failures, lost_at = 0, 0.0
        while True:
            try:
                for envelope in self._read():
                    failures = 0
                    yield envelope
                    if envelope["event"]["type"] in TERMINAL:
                        return
                if self.run is not None:
                    return
                failures = 0
            except AppError as error:
                lost_at = lost_at if failures else time.monotonic()
                self._bear(error, failures, since=lost_at)
                failures += 1
            time.sleep(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])

    def _read(self) -> Iterator[dict[str, Any]]:
        """One connection's share. Sets `run` where it had ended before, and nothing came any more."""
        with self.connect() as client:
            run = client.get(f"/runs/{segment(self.run_id)}")
            self._met, quiet = True, True
            for envelope in client.events(self.run_id, after=self.seen):
                quiet = False
                self.seen = envelope["seq"]
                yield envelope
            if quiet and run["finished_at"] is not None:
                self.run = run

    def _bear(self, error: AppError, failures: int, *, since: float) -> None:
        """Raises what waiting does not mend."""
        if not self._met or error.code not in _TEMPORARY:
            raise error
        if time.monotonic() - since > _PATIENCE_S:
            again = f"orrery runs tail {self.run_id} --after {self.seen}"
            raise ApiError(f"{error.detail} The run may go on. To follow it again: {again}") from error
        if not failures:
            self.away(error.detail)


def succeeded(tail: Tail, last: dict[str, Any] | None) -> bool:
    """How the run that was followed ended: by its `last` event, else by what is known of the run."""
    if tail.run is not None:
        return bool(tail.run["status"] == "succeeded")
    return last is not None and last["event"]["type"] == "RUN_FINISHED"
