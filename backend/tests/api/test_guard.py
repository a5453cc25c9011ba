"""Start-up fails where a route declares no permission, or a POST nothing about its `Idempotency-Key`."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute

from app.api.dependencies import ASK_WHO_CALLS, PUBLIC, Public, allow
from app.api.guard import api_routes, calls_of, check_keys, check_permissions
from app.api.idempotency import Idempotent, idempotent, without_key
from app.core.config import Settings
from app.core.constants import API_PREFIX
from app.core.errors import Misconfigured
from app.core.permissions import Permission
from main import create_app


async def endpoint() -> None:
    """Answers nothing."""


def new_app() -> FastAPI:
    """An application without routes of its own but for its description."""
    return FastAPI(docs_url=None, redoc_url=None)


class TestRealRoutes:
    def test_all_declare_a_permission(self) -> None:
        app = create_app(Settings(_env_file=None))
        check_permissions(app)
        assert len(list(api_routes(app.routes))) > 25

    def test_that_are_public_are_known(self) -> None:
        app = create_app(Settings(_env_file=None))
        public = {
            route.path
            for route in api_routes(app.routes)
            if any(isinstance(call, Public) for call in calls_of(route.dependant))
        }
        doors = {f"{API_PREFIX}/auth/{name}" for name in ("login", "refresh", "logout")}
        assert public == {"/", "/health/live", "/health/ready"} | doors

    def test_may_be_without_documentation_pages(self) -> None:
        check_permissions(create_app(Settings(docs_enabled=False, _env_file=None)))


class TestRefused:
    def test_a_bare_route_is_named(self) -> None:
        app = new_app()
        app.add_api_route("/open", endpoint, methods=["POST"])
        with pytest.raises(Misconfigured, match=r"POST /open \(.*test_guard\)"):
            check_permissions(app)

    @pytest.mark.parametrize("asking", [*ASK_WHO_CALLS, Idempotent()])
    def test_a_public_route_that_asks_who_calls_is_named(self, asking: Any) -> None:
        app = new_app()
        app.add_api_route("/open", endpoint, dependencies=[PUBLIC, Depends(asking)])
        with pytest.raises(Misconfigured, match=r"let anybody in .*GET /open"):
            check_permissions(app)

    def test_every_bare_route_is_named(self) -> None:
        app = new_app()
        app.add_api_route("/one", endpoint)
        app.add_api_route("/two", endpoint)
        with pytest.raises(Misconfigured, match=r"/one .*/two "):
            check_permissions(app)

    def test_a_bare_route_inside_included_routers(self) -> None:
        app, outer, inner = new_app(), APIRouter(prefix="/outer"), APIRouter(prefix="/inner")
        inner.add_api_route("/open", endpoint)
        outer.include_router(inner)
        app.include_router(outer)
        with pytest.raises(Misconfigured, match="/inner/open"):
            check_permissions(app)

    def test_a_bare_route_inside_a_mounted_application(self) -> None:
        app, inner = new_app(), FastAPI(openapi_url=None)
        inner.add_api_route("/open", endpoint)
        app.mount("/inner", inner)
        with pytest.raises(Misconfigured, match="/open"):
            check_permissions(app)

    def test_routes_that_are_none_of_fastapis(self) -> None:
        async def answer(_: object) -> Response:
            return Response()

        async def listen(_: object) -> None: ...

        for route in (Route("/plain", answer), WebSocketRoute("/socket", listen)):
            app = new_app()
            app.router.routes.append(route)
            with pytest.raises(Misconfigured, match="which no permission guards"):
                check_permissions(app)

    def test_a_plain_route_inside_a_mounted_application(self) -> None:
        app = new_app()
        app.mount("/inner", Starlette(routes=[Route("/plain", Response())]))
        with pytest.raises(Misconfigured, match="which no permission guards"):
            check_permissions(app)

    def test_a_websocket_of_fastapi(self) -> None:
        app = new_app()
        app.add_api_websocket_route("/socket", endpoint)
        with pytest.raises(Misconfigured, match="which no permission guards"):
            check_permissions(app)


class TestAccepted:
    def test_a_route_with_a_permission(self) -> None:
        app = new_app()
        app.add_api_route("/closed", endpoint, dependencies=[allow(Permission.SEARCH)])
        check_permissions(app)

    def test_a_route_that_says_it_is_public(self) -> None:
        app = new_app()
        app.add_api_route("/open", endpoint, dependencies=[PUBLIC])
        check_permissions(app)

    def test_a_route_whose_router_declares_it(self) -> None:
        app, router = new_app(), APIRouter(dependencies=[allow(Permission.SEARCH)])
        router.add_api_route("/closed", endpoint)
        app.include_router(router)
        check_permissions(app)


class TestKeys:
    def test_are_declared_by_every_real_route(self) -> None:
        check_keys(create_app(Settings(_env_file=None)))

    def test_a_post_that_says_nothing_is_named(self) -> None:
        app, router = new_app(), APIRouter(prefix="/inner")
        router.add_api_route("/make", endpoint, methods=["POST"], dependencies=[allow(Permission.SEARCH)])
        app.include_router(router)
        with pytest.raises(Misconfigured, match=r"POST /inner/make \(.*test_guard\)"):
            check_keys(app)

    @pytest.mark.parametrize("declared", [idempotent(), idempotent(late=True), without_key("it only reads")])
    def test_a_post_that_says_which_is_accepted(self, declared: Any) -> None:
        app = new_app()
        app.add_api_route("/make", endpoint, methods=["POST"], dependencies=[declared])
        check_keys(app)

    def test_other_methods_need_not_say(self) -> None:
        app = new_app()
        app.add_api_route("/read", endpoint, methods=["GET", "PUT", "PATCH", "DELETE"])
        check_keys(app)
