"""Runs made of other runs: resumed, forked from a checkpoint, replayed."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Request, Response

from app.api.dependencies import DescendantsDep, RunsDep, allow, paged
from app.api.idempotency import EarlierDep
from app.api.native import native_router
from app.api.run_answers import ANSWERS, mode_of, run_answer, stream_answer
from app.api.schemas.agents import CheckpointRead, RunAgain, RunFork, RunRead
from app.api.schemas.common import PageRead, page_of
from app.api.sse import LastEventId
from app.core.paging import PageRequest
from app.core.permissions import Permission
from app.db.postgres.models.agents import RunMode
from app.db.postgres.repositories.agents import RunCheckpoints
from app.services.descendant_service import Wanted
from app.services.run_service import RunService

router = native_router("/runs", tag="runs")

_MAKES_A_RUN: Final[dict[str, Any]] = {
    "dependencies": [allow(Permission.AGENTS_RUN)],
    "response_model": RunRead,
    "responses": ANSWERS,
}


@router.get(
    "/{run_id}/checkpoints",
    operation_id="runs_checkpoints",
    summary="List checkpoints of a run",
    dependencies=[allow(Permission.AGENTS_READ)],
)
async def checkpoints(
    run_id: UUID, page: Annotated[PageRequest, paged(RunCheckpoints)], runs: RunsDep
) -> PageRead[CheckpointRead]:
    """Where another run can go on from: `fork` takes the `seq` of one."""
    return page_of(await runs.checkpoints(run_id, page), CheckpointRead.model_validate)


@router.post("/{run_id}/resume", operation_id="runs_resume", summary="Resume a run", **_MAKES_A_RUN)
async def resume(
    run_id: UUID,
    request: Request,
    response: Response,
    runs: RunsDep,
    descendants: DescendantsDep,
    earlier: EarlierDep,
    body: RunAgain | None = None,
    last_event_id: LastEventId = None,
) -> Any:
    """Goes on with a failed or cancelled run in a new one, also on a corrected version.

    Steps that had come to an end are not executed again where the version asks the same of them.
    """
    again = _Again(request, response, runs, body or RunAgain(), last_event_id)
    return await again.answer(earlier or await descendants.resume(run_id, again.wanted), repeated=earlier)


@router.post("/{run_id}/fork", operation_id="runs_fork", summary="Fork a run", **_MAKES_A_RUN)
async def fork(
    run_id: UUID,
    body: RunFork,
    request: Request,
    response: Response,
    runs: RunsDep,
    descendants: DescendantsDep,
    earlier: EarlierDep,
    last_event_id: LastEventId = None,
) -> Any:
    """Goes on from a checkpoint of a run in a new one; effects after it are had again."""
    again = _Again(request, response, runs, body, last_event_id)
    made = earlier or await descendants.fork(run_id, body.checkpoint, again.wanted)
    return await again.answer(made, repeated=earlier)


@router.post("/{run_id}/replay", operation_id="runs_replay", summary="Replay a run", **_MAKES_A_RUN)
async def replay(
    run_id: UUID,
    request: Request,
    response: Response,
    runs: RunsDep,
    descendants: DescendantsDep,
    earlier: EarlierDep,
    body: RunAgain | None = None,
    last_event_id: LastEventId = None,
) -> Any:
    """Does what a run that has ended did, on its recorded answers and with the network closed.

    The events are the same, but for ids and times; where a version does something else, the replay fails
    with `replay_diverged`, which says what.
    """
    again = _Again(request, response, runs, body or RunAgain(), last_event_id)
    return await again.answer(earlier or await descendants.replay(run_id, again.wanted), repeated=earlier)


class _Again:
    """What is wanted of a run made of another one, and how its maker hears of it."""

    def __init__(
        self,
        request: Request,
        response: Response,
        runs: RunService,
        body: RunAgain,
        last_event_id: int | None,
    ) -> None:
        self._request, self._response, self._runs = request, response, runs
        self._timeout_s, self._last_event_id = body.wait_timeout_s, last_event_id
        mode = mode_of(request, body.mode, given="mode" in body.model_fields_set)
        given = body.input if isinstance(body, RunFork) else None
        self.wanted = Wanted(mode, body.version, given, body.metadata)

    async def answer(self, run_id: UUID, *, repeated: UUID | None) -> Any:
        mode = self.wanted.mode
        if mode is RunMode.STREAM:
            after = (self._last_event_id or 0) if repeated else 0
            return await stream_answer(self._request, self._runs, run_id, after=after)
        made = await self._runs.get(run_id)
        return await run_answer(
            self._request, self._response, self._runs, made, mode=mode, wait_timeout_s=self._timeout_s
        )
