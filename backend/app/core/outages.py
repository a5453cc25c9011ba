"""Work that is tried again and again: its failures are told once when they begin, and once when they end."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic
from typing import Any

_LONGEST_PAUSE_S = 2.0


@dataclass(slots=True)
class Outage:
    """Failures in a row of what `event` names in the log; the first one's error is told."""

    logger: Any
    event: str
    first_pause_s: float = 0.25
    longest_pause_s: float = _LONGEST_PAUSE_S
    failures: int = field(default=0, init=False)
    _began: float = field(default=0.0, init=False)

    def failed(self, error: Exception) -> float:
        """Notes a failure. Answers how many seconds to wait before the next try: longer each time."""
        if not self.failures:
            self._began = monotonic()
            self.logger.warning(self.event, error=repr(error))
        doublings = min(self.failures, 10)
        self.failures += 1
        return float(min(self.first_pause_s * 2**doublings, self.longest_pause_s))

    def over(self) -> None:
        """Notes that it works (again)."""
        if self.failures:
            lasted_s = round(monotonic() - self._began, 3)
            self.logger.info("outage_over", of=self.event, failures=self.failures, lasted_s=lasted_s)
            self.failures = 0
