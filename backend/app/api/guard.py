"""Start-up's look at every route: each declares its permission, each POST what a key does to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount, Route

from app.api import docs, pages
from app.api.dependencies import ASK_WHO_CALLS, Demand, Public
from app.api.idempotency import Idempotent, WithoutKey
from app.core.errors import Misconfigured

UNGUARDED = ("/openapi.json", *docs.PATHS, *pages.PATHS)


def api_routes(routes: Iterable[BaseRoute]) -> Iterator[APIRoute]:
    """Every API route, also inside included routers; fails on a kind of route that it does not know.

    FastAPI 0.165 keeps an included router as one entry, so the list has to be walked into.
    """
    for route in routes:
        included = getattr(route, "original_router", None)
        if isinstance(route, APIRoute):
            yield route
        elif included is not None:
            yield from api_routes(included.routes)
        elif isinstance(route, Mount):
            yield from api_routes(route.routes)
        elif not (isinstance(route, Route) and route.path in UNGUARDED):
            path = getattr(route, "path", "?")
            raise Misconfigured(
                f"The route {path!r} is a {type(route).__name__}, which no permission guards."
            )


def check_permissions(app: FastAPI) -> None:
    """Raises `Misconfigured` naming every route without a permission, or with none that says who calls."""
    bare = [
        _name(route)
        for route in api_routes(app.routes)
        if not any(isinstance(call, Demand | Public) for call in calls_of(route.dependant))
    ]
    if bare:
        raise Misconfigured(
            "These routes declare no permission (dependencies=[allow(…)] or PUBLIC): "
            + ", ".join(sorted(bare))
        )
    blind = [
        _name(route)
        for route in api_routes(app.routes)
        if any(call in ASK_WHO_CALLS or isinstance(call, Idempotent) for call in calls_of(route.dependant))
        and not any(isinstance(call, Demand) for call in calls_of(route.dependant))
    ]
    if blind:
        raise Misconfigured(
            "These routes ask who calls but let anybody in (use dependencies=[allow(…)]): "
            + ", ".join(sorted(blind))
        )


def check_keys(app: FastAPI) -> None:
    """Raises `Misconfigured` naming every POST route that says nothing about `Idempotency-Key`."""
    bare = [
        _name(route)
        for route in api_routes(app.routes)
        if "POST" in (route.methods or ())
        and not any(isinstance(call, Idempotent | WithoutKey) for call in calls_of(route.dependant))
    ]
    if bare:
        raise Misconfigured(
            'These routes take POST but declare neither idempotent() nor without_key("why"): '
            + ", ".join(sorted(bare))
        )


def _name(route: APIRoute) -> str:
    return f"{'/'.join(sorted(route.methods or ()))} {route.path} ({route.endpoint.__module__})"


def calls_of(dependant: Dependant) -> Iterator[object]:
    """What a route calls before itself, and itself."""
    yield dependant.call
    for child in dependant.dependencies:
        yield from calls_of(child)
