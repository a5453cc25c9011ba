"""What is to be found here, for people and programs that come without a path."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from app import __version__
from app.api.dependencies import PUBLIC
from app.core.constants import API_PREFIX

router = APIRouter(tags=["health"])
Path = Annotated[str | None, Field(exclude_if=lambda path: path is None)]


class Signpost(BaseModel):
    """Paths on this server; those of the documentation only where it is shown."""

    name: str = "Orrery"
    version: str = __version__
    api: str = API_PREFIX
    health: str = "/health/ready"
    docs: Path = None
    openapi: Path = None


@router.get("/", operation_id="root", summary="Show what is here", dependencies=[PUBLIC])
async def root(request: Request) -> Signpost:
    """Where the API, its health and its documentation are."""
    return Signpost(docs=request.app.docs_url, openapi=request.app.openapi_url)
