"""One event of a run as it is stored: the text that is committed is the text that everybody reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.db.base import Json

TERMINAL = ("RUN_FINISHED", "RUN_ERROR")


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One row of the log; `seq` counts from 1 without gaps. `text` is the AG-UI event as JSON."""

    run_id: UUID
    seq: int
    ts: datetime
    node_path: str
    type: str
    text: str

    @property
    def event(self) -> Json:
        body: Json = json.loads(self.text)
        return body

    @property
    def terminal(self) -> bool:
        return self.type in TERMINAL
