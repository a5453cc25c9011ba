"""Is the process alive, and can it serve."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from app.api.dependencies import PUBLIC, ResourcesDep, StoppingDep
from app.resources import Resources

router = APIRouter(prefix="/health", tags=["health"], dependencies=[])


class Health(BaseModel):
    status: Literal["ok", "degraded", "unavailable", "stopping"]
    checks: dict[str, str] = {}


@router.get("/live", operation_id="health_live", summary="Is the process alive", dependencies=[PUBLIC])
async def live() -> Health:
    """Answers as soon as the port is open."""
    return Health(status="ok")


@router.get("/ready", operation_id="health_ready", summary="Can the process serve", dependencies=[PUBLIC])
async def ready(resources: ResourcesDep, stopping: StoppingDep, response: Response) -> Health:
    """503 while the database or the broker cannot be reached, or the process is stopping.

    `degraded` with 200 while only the folder of blobs cannot be used: all but documents goes on.
    """
    health = await health_of(resources, stopping)
    if health.status in ("stopping", "unavailable"):
        response.status_code = 503
    return health


async def health_of(resources: Resources, stopping: asyncio.Event) -> Health:
    """What this process is fit for now."""
    if stopping.is_set():
        return Health(status="stopping")
    checks = await resources.check()
    if all(state == "ok" for state in checks.values()):
        return Health(status="ok", checks=checks)
    if all(state == "ok" for name, state in checks.items() if name != "blobs"):
        return Health(status="degraded", checks=checks)
    return Health(status="unavailable", checks=checks)
