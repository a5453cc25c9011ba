"""What is to be found here, for people and programs that come without a path."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from app import __version__
from app.api.dependencies import PUBLIC
from app.api.pages import start_page, tutorial_page
from app.api.routers.health import health_of
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
    tutorial: Path = None
    openapi: Path = None


@router.get(
    "/",
    operation_id="root",
    summary="Show what is here",
    dependencies=[PUBLIC],
    response_model=Signpost,
    responses={200: {"content": {"text/html": {}}}},
)
async def root(request: Request, response: Response) -> Any:
    """Where the API, its health and its documentation are; a page for browsers, which ask for HTML."""
    documented = request.app.docs_url is not None
    if "text/html" not in request.headers.get("Accept", ""):
        response.headers["Vary"] = "Accept"
        return Signpost(
            docs=request.app.docs_url,
            tutorial=tutorial_page() if documented else None,
            openapi=request.app.openapi_url,
        )
    state = await health_of(request.app.state.resources, request.app.state.stopping)
    url = request.app.state.settings.public_url or str(request.base_url).rstrip("/")
    root_path = request.scope.get("root_path", "")
    page = start_page(url=url, root=root_path, status=_WORDS[state.status], documented=documented)
    page.headers["Vary"] = "Accept"
    return page


_WORDS = {
    "ok": "ready",
    "degraded": "ready, except for documents",
    "unavailable": "not ready: a service that it needs does not answer",
    "stopping": "stopping",
}
"""What health is called among people."""
