"""One run on its way: what it needs to start, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from ag_ui.core import RunErrorEvent

from app.agent.core.interrupts import Suspended
from app.agent.core.run_errors import RunErrorCode
from app.agent.graph.executable import ExecutableAgent
from app.agent.graph.ports import RunResult, usage_told
from app.agent.graph.recording import Recording
from app.core.errors import AppError
from app.db.base import Json
from app.db.postgres.models.agents import RunStatus
from app.db.session import Tenant
from app.services.runs.leases import Lease
from app.services.runs.recovery import Recovered
from app.services.runs.run_log import Ending, RunLog
from app.services.runs.stored_json import event_json, storable

_PAUSE_S = 5.0
_LOGGED = 300
"""Characters of a reason."""


@dataclass(frozen=True, slots=True)
class Execution:
    """A run that is leased to this process, with checked `inputs`. `seq`: its last event that is stored.

    `recovered`: what other processes did of it before, and the run that it was made of; `answers`: how many
    it had been given by then. `effects_of`: the run whose effects it may have to repeat. `recording`: the run
    that it does again.
    """

    tenant: Tenant
    run_id: UUID
    fence: int
    agent: ExecutableAgent
    inputs: Json
    seq: int = 0
    recovered: Recovered | None = None
    answers: int = 0
    effects_of: UUID | None = None
    recording: Recording | None = None

    @property
    def lease(self) -> Lease:
        return Lease(self.tenant.org_id, self.run_id, self.fence)


@dataclass(frozen=True, slots=True)
class Left:
    """How a run left this process, as it is stored; it has ended if `finished_at` is there."""

    ending: Ending
    finished_at: datetime | None


def succeeded(result: RunResult, run: RunLog) -> Ending:
    if run.terminal is None:
        raise RuntimeError("an executable agent ends with a terminal event")
    return Ending(
        RunStatus.SUCCEEDED,
        run.terminal.body(),
        run.terminal.type,
        output=dict(storable(result.output)),
    )


def failed(error: AppError, run: RunLog) -> Ending:
    """As `error` says, and as the run told it if it did."""
    if run.terminal is None:
        return failed_by(error.code, error.detail)
    told = {"code": error.code, "message": error.detail}
    status = RunStatus.CANCELLED if error.code == RunErrorCode.CANCELLED else RunStatus.FAILED
    return Ending(status, run.terminal.body(), run.terminal.type, error=told)


def failed_by(code: str, message: str) -> Ending:
    return _told(RunStatus.FAILED, code, message)


def cancelled() -> Ending:
    return _told(RunStatus.CANCELLED, "cancelled", "The run was cancelled.")


def suspended(waiting: Suspended, *, answers: int) -> Ending:
    """The run waits for a person or a time; `answers` are those it has had so far."""
    status = RunStatus.INTERRUPTED if waiting.by_people else RunStatus.WAITING
    return Ending(status, due_ms=waiting.due_ms, answers=answers)


def handed_over() -> Ending:
    """The run goes back into the queue: whoever has room goes on with it."""
    return Ending(RunStatus.QUEUED)


def put_off() -> Ending:
    """The same for a run that cannot go on here and now: a while later, and not for ever."""
    return Ending(RunStatus.QUEUED, pause_s=_PAUSE_S)


def with_usage(ending: Ending, run: RunLog) -> Ending:
    """However a run ends, what it has used is told; where it goes on, nothing is."""
    return ending if ending.event is None else replace(ending, usage=usage_told(run.used))


def why(ending: Ending) -> dict[str, str]:
    """What a log says of a run that did not succeed."""
    if ending.error is None:
        return {}
    return {"code": str(ending.error["code"]), "reason": str(ending.error["message"])[:_LOGGED]}


def _told(status: RunStatus, code: str, message: str) -> Ending:
    event = RunErrorEvent(message=message, code=code)
    error = {"code": code, "message": message}
    return Ending(status, event_json(event), "RUN_ERROR", error=error)
