"""A run that was claimed, with all that is needed to go on with it."""

from __future__ import annotations

from app.db.postgres.models.agents import RunOrigin
from app.db.session import Database
from app.services.runs.execution import Execution
from app.services.runs.interrupts import interrupts_of, unanswered
from app.services.runs.outfit import Outfit
from app.services.runs.recovery import recover, used_by
from app.services.runs.replays import recording_of
from app.services.runs.run_claims import ClaimedRun
from app.services.runs.run_log import RunLog
from app.services.runs.versions import load_agent


async def taken_up(claimed: ClaimedRun, outfit: Outfit) -> Execution:
    """Its agent, and what was done of it before: by other processes, or by the run that it was made of."""
    database = outfit.database
    async with database.reading(claimed.tenant) as connection:
        agent = await load_agent(connection, outfit.factory, claimed.tenant, claimed.version_id)
    recovered = recording = None
    if claimed.made_by == RunOrigin.REPLAY:
        parent = claimed.parent_run_id
        recording = await recording_of(database, claimed.tenant, claimed.id, events_of=parent, made_of=parent)
    elif claimed.fence > 1 or claimed.made_by:
        continued = claimed.fence - 1
        recovered = await recover(database, claimed.tenant, claimed.id, continued=continued)
    return Execution(
        tenant=claimed.tenant,
        run_id=claimed.id,
        fence=claimed.fence,
        agent=agent,
        inputs=agent.validate_input(claimed.input),
        seq=claimed.last_seq,
        recovered=recovered,
        answers=claimed.answers,
        effects_of=claimed.effects_of,
        recording=recording,
    )


async def look_back(claimed: ClaimedRun, run: RunLog, database: Database) -> None:
    """What a run that is not gone on with used and asked until it was claimed; a replay does neither."""
    if claimed.made_by == RunOrigin.REPLAY:
        return
    async with database.reading(claimed.tenant) as connection:
        run.used |= await used_by(connection, claimed.tenant, claimed.id)
        run.asked |= unanswered(await interrupts_of(connection, claimed.tenant, claimed.id))
