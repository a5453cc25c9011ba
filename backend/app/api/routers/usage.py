"""What runs of a project used and cost."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from app.api.dependencies import RunsDep, allow
from app.api.native import native_router
from app.api.schemas.common import Moment
from app.api.schemas.usage import UsageReport
from app.core.permissions import Permission
from app.db.postgres.repositories.usage import GroupBy

router = native_router("/usage", tag="runs")


@router.get(
    "",
    operation_id="usage_get",
    summary="Sum up what runs used",
    dependencies=[allow(Permission.AGENTS_READ)],
)
async def get(
    runs: RunsDep,
    group_by: GroupBy = GroupBy.AGENT,
    since: Annotated[
        Moment | None, Query(alias="from", description="30 days before `to`, unless it says otherwise")
    ] = None,
    until: Annotated[Moment | None, Query(alias="to", description="Exclusive; now, without it")] = None,
) -> UsageReport:
    """Tokens and cost of the runs that were made between two times, 366 days apart at most.

    What a run used is counted when it has ended.
    """
    return UsageReport.model_validate(await runs.usage(group_by, since=since, until=until))
