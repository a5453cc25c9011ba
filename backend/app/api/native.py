"""What every route of our own API has; doors that speak another's protocol do not."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection

from app.api.schemas.common import Problem
from app.core.constants import API_PREFIX

SCHEMAS = "#/components/schemas/"
_RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "What went wrong (RFC 9457); `errors` points at the fields",
        # FastAPI would file a `model` here under `application/json`.
        "content": {"application/problem+json": {"schema": {"$ref": f"{SCHEMAS}{Problem.__name__}"}}},
    }
}


def native_router(prefix: str = "", *, tag: str, route_class: type[APIRoute] = APIRoute) -> APIRouter:
    """A router under `/api/v1`, complete in itself.

    The application takes its routes as they are: FastAPI would resolve each route's dependencies a second
    time, amid the first requests, for a router that another one includes.
    """
    return APIRouter(
        prefix=API_PREFIX + prefix,
        tags=[tag],
        dependencies=[Depends(mark_native)],
        responses=_RESPONSES,
        route_class=route_class,
    )


async def mark_native(connection: HTTPConnection) -> None:
    """Who may not call is told so before anything is said of the request: `Demand` and `Public` check it."""
    connection.scope["orrery.native"] = True
