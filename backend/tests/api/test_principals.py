"""Who may call a route: nobody without a credential, nobody without the route's permission."""

from __future__ import annotations

import re
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from app.core.ids import new_id
from app.core.permissions import Permission
from tests.api.calls import problem
from tests.api.operations import OPERATIONS, OURS, Operation
from tests.factories import Factory, Member
from tests.fixtures import Running, http_client

pytestmark = pytest.mark.asyncio(loop_scope="session")

PUBLIC = {"health_live", "health_ready", "root", "auth_login", "auth_refresh", "auth_logout"}
GUARDED = [operation for operation in OURS if operation.id not in PUBLIC]
CREDENTIALS: dict[str, dict[str, str]] = {
    "none": {},
    "empty": {"Authorization": "Bearer"},
    "short": {"Authorization": "Bearer orr_1"},
    "unknown": {"Authorization": f"Bearer orr_{new_id().hex}_{'x' * 43}"},
    "another scheme": {"Authorization": "Basic b3duZXI6b3duZXI="},
    "SQL": {"Authorization": f"Bearer {'x' * 32}' OR digest IS NOT NULL --"},
    "not ASCII": {"Authorization": "Bearer " + "ü" * 40},
    "endless": {"Authorization": "Bearer " + "x" * 20_000},
}


class Everything(dict[str, str]):
    """A fresh id for whatever a path names."""

    def __missing__(self, name: str) -> str:
        return str(new_id())


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def owner(server: Running) -> Member:
    return await Factory(server.resources).member()


class TestWithoutCredential:
    async def test_only_these_routes_answer(self) -> None:
        assert {operation.id for operation in OPERATIONS if operation.permission is None} == PUBLIC

    @pytest.mark.parametrize("operation", GUARDED, ids=lambda operation: operation.id)
    async def test_every_other_route_is_closed(self, server: Running, operation: Operation) -> None:
        for name, headers in CREDENTIALS.items():
            async with http_client(server, None) as client:
                sent = {key: value.encode() for key, value in headers.items()}
                response = await operation.call(client, Everything(), headers=sent)
            assert response.status_code == 401, (name, response.text)
            problem(response, 401, "unauthenticated")
            assert response.headers["WWW-Authenticate"] == "Bearer"

    @pytest.mark.parametrize("operation", GUARDED, ids=lambda operation: operation.id)
    async def test_comes_before_any_word_about_the_request(
        self, server: Running, operation: Operation
    ) -> None:
        """A wrong body, query or id tells a stranger nothing of the route."""
        async with http_client(server, None) as client:
            path = re.sub(r"{\w+}", "not-an-id", operation.path)
            sent = {
                "content": b"{",
                "headers": {"Content-Type": "application/json"},
                "params": {"no": "such"},
            }
            response = await client.request(operation.method, path, **sent)
        problem(response, 401, "unauthenticated")


class TestWithoutPermission:
    @pytest.mark.parametrize("operation", GUARDED, ids=lambda operation: operation.id)
    async def test_a_route_is_closed(
        self, server: Running, make: Factory, owner: Member, operation: Operation
    ) -> None:
        others = [each.value for each in Permission if each is not operation.permission]
        response = await self._called(server, make, owner, operation, others)
        detail: str = problem(response, 403, "forbidden")["detail"]
        assert repr(str(operation.permission)) in detail

    @pytest.mark.parametrize("operation", GUARDED, ids=lambda operation: operation.id)
    async def test_a_route_needs_no_other_one(
        self, server: Running, make: Factory, owner: Member, operation: Operation
    ) -> None:
        assert operation.permission is not None
        response = await self._called(server, make, owner, operation, [operation.permission.value])
        assert response.status_code not in (401, 403), response.text

    async def _called(
        self, server: Running, make: Factory, owner: Member, operation: Operation, scopes: list[str]
    ) -> httpx2.Response:
        values: dict[str, Any] = Everything()
        async with http_client(server, (await make.key(owner, permissions=scopes)).key) as client:
            return await operation.call(client, values)
