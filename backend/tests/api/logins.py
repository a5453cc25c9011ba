"""Steps of a login that many tests take."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx2
from sqlalchemy import text

from app.db.postgres.models.sessions import UserSession
from tests.api.calls import API, ok
from tests.factories import Person
from tests.fixtures import Running


async def login(anyone: httpx2.AsyncClient, person: Person, **more: Any) -> dict[str, Any]:
    return ok(await anyone.post(f"{API}/auth/login", json=person.login | more))


async def refresh(anyone: httpx2.AsyncClient, token: str) -> httpx2.Response:
    return await anyone.post(f"{API}/auth/refresh", json={"refresh_token": token})


async def me(anyone: httpx2.AsyncClient, grant: dict[str, Any]) -> httpx2.Response:
    return await anyone.get(f"{API}/auth/me", headers=bearer(grant))


def bearer(grant: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {grant['access_token']}"}


async def stored(server: Running, session_id: str) -> UserSession:
    async with server.resources.database.system_work() as session:
        return await session.get_one(UserSession, UUID(session_id))


async def age(server: Running, session_id: str, by: timedelta) -> None:
    """What happened in the session happened earlier, by so much."""
    statement = (
        "UPDATE user_sessions SET expires_at = expires_at - CAST(:by AS interval), "
        "created_at = created_at - CAST(:by AS interval), "
        "refreshed_at = refreshed_at - CAST(:by AS interval) WHERE id = :id"
    )
    async with server.resources.database.system_work() as session:
        await session.execute(text(statement), {"by": by, "id": UUID(session_id)})


async def logout(anyone: httpx2.AsyncClient, grant: dict[str, Any], by: str) -> httpx2.Response:
    if by == "access_token":
        return await anyone.post(f"{API}/auth/logout", headers=bearer(grant))
    return await anyone.post(f"{API}/auth/logout", json={"refresh_token": grant["refresh_token"]})
